"""One worker on the CPU is the driver itself; torch is then as it was, and its state is kept."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import ray.train
import torch

from pipeline.runtime.nodes import cluster
from pipeline.runtime.nodes.cluster import MAX_RESOURCES
from pipeline.runtime.train import ray_train, train_here


@pytest.fixture
def run(tmp_path) -> str:
    return str(tmp_path / "storage" / "run")


def counting_loop(config: dict[str, Any]) -> float:
    """Counts to 4, a checkpoint a step; stops after those that the config says."""
    device = ray_train.prepare_device(1)
    assert device.type == "cpu" and torch.are_deterministic_algorithms_enabled()
    checkpoint = ray_train.last_checkpoint()
    count = 0 if checkpoint is None else ray_train.read_state(checkpoint)["count"]
    torch.manual_seed(0)
    for step in range(count + 1, 5):
        ray_train.report({"step": step}, partial(dict, count=step))
        if step == config.get("stop"):
            raise KeyboardInterrupt
    return count


def fitted(run: str, **config: Any) -> ray.train.Result:
    return ray_train.fit(train_here.trainer_here(counting_loop, config, run, {}), "")


def test_a_stopped_run_goes_on_from_its_last_state(run):
    for stop in (1, 3):
        with pytest.raises(KeyboardInterrupt):
            fitted(run, stop=stop)
    for begun in (3, 4):  # the second time it finds all done
        result = fitted(run)
        assert result.return_value == begun
        assert ray_train.read_state(result.checkpoint) == {"count": 4}
    assert not train_here.is_here()


def test_torch_is_afterwards_as_it_was(run):
    torch.set_num_threads(2)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    for config in ({"stop": 2}, {}):
        try:
            fitted(run, **config)
        except KeyboardInterrupt:
            pass
        assert torch.get_num_threads() == 2
        assert not torch.are_deterministic_algorithms_enabled()
        assert torch.equal(torch.get_rng_state(), before)


def nodes(*cores: float) -> list[dict[str, Any]]:
    return [{"Alive": True, "NodeID": str(i), "Resources": {"CPU": n}} for i, n in enumerate(cores)]


def test_it_needs_one_light_worker_and_a_cluster_of_one_node(monkeypatch):
    def may(workers: int = 1, use_gpu: bool = False, light: bool = True, cores=(2,)) -> bool:
        here = SimpleNamespace(get_node_id=lambda: "0")
        monkeypatch.setattr(cluster.ray, "nodes", lambda: nodes(*cores))
        monkeypatch.setattr(cluster.ray, "get_runtime_context", lambda: here)
        return train_here.may_run_here(workers, use_gpu, light)

    assert may()
    assert not may(workers=2) and not may(use_gpu=True) and not may(light=False)
    assert not may(cores=(0,)) and not may(cores=(2, 2))
    with monkeypatch.context() as patch:
        patch.setenv(MAX_RESOURCES, '{"CPU": 8}')
        assert not may()
