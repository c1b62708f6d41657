"""What every training shares: starting Ray Train, and what its workers need of each other."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, fields
from functools import partial
from io import BytesIO
from typing import Any

import ray
import ray.data
import ray.train
import ray.train.torch
import torch
import torch.distributed as dist
from ray.train.torch import TorchTrainer
from torch import Tensor

from pipeline.runtime.errors import OUT_OF_MEMORY, DamagedFile, InputError, told
from pipeline.runtime.files import NO_ROOM, write_atomically
from pipeline.runtime.nodes.cluster import cluster_cores, resources
from pipeline.runtime.train.train_here import (
    STATE_FILE,
    Loop,
    is_here,
    keep,
    kept_checkpoint,
    may_run_here,
    trainer_here,
)

log = logging.getLogger(__name__)

ONEDNN_CACHE = "4096"
# As use_deterministic_algorithms(True), which also imports torch's compiler: 2 s of each process.
REPEATABLE = "error"
# Settings that came later decide nothing while they have their defaults, which must not change
# then: older runs keep their names.
LATER = (
    "ood_ratio", "sequence_column", "residues", "min_length", "max_length", "cluster_method",
    "identity", "coverage", "noise_shift",
)  # fmt: skip


def run_name(settings: Any, not_decisive: Sequence[str], *others: Any) -> str:
    """A name that only a run of the same training shares, so that no other is resumed.

    Parameters
    ----------
    settings : a dataclass.
    not_decisive : fields of it that say where and how fast, not what.
    others : JSON-ready; what else decides the outcome.
    """
    content = json.dumps([decisive(settings, not_decisive), *others], sort_keys=True)
    return hashlib.blake2b(content.encode(), digest_size=10).hexdigest()


def decisive(settings: Any, not_decisive: Sequence[str]) -> dict[str, Any]:
    """The settings that decide an outcome; parameters as of `run_name`."""
    later = {field.name: field.default for field in fields(settings) if field.name in LATER}
    return {
        name: value
        for name, value in asdict(settings).items()
        if name not in not_decisive and not (name in later and value == later[name])
    }


def torch_trainer(
    loop: Loop,
    config: dict[str, Any],
    *,
    workers: int,
    use_gpu: bool,
    cores: float,
    storage: str,
    name: str,
    datasets: dict[str, ray.data.Dataset] | None = None,
    light: bool = False,
) -> TorchTrainer:
    """A TorchTrainer that keeps its latest checkpoint and starts again when a worker dies.

    Parameters
    ----------
    light : it needs little memory, and its batches have few shapes, so that one worker on a CPU can
        be this process. Others get processes of their own, which Ray ends in place of the driver
        when memory is short, and which allocate by `allocator`.
    cores : of the cluster that the training may take.
    storage, name : folder, and the name within it by which a rerun finds this run.
    datasets : each worker sees all their rows, in the same order.
    """
    if use_gpu and workers > resources()["GPU"]:
        raise InputError(
            f"--num_workers {workers}: the Ray cluster has {resources()['GPU']:g} GPUs "
            "and each worker needs one"
        )
    run = f"{storage}/{name}"
    if may_run_here(workers, use_gpu, light):
        log.info("training in this process: one worker, on the CPU")
        return trainer_here(loop, config, run, datasets or {})
    # A worker reserves at most its part of half the cores: streaming tasks need the others.
    cpus = min(1.0, cores / (2 * workers))
    return TorchTrainer(
        partial(_from_what_was_kept, loop, run),
        train_loop_config=config,
        datasets=datasets or {},
        dataset_config=ray.train.DataConfig(
            datasets_to_split=[],
            execution_options=ray.data.ExecutionOptions(preserve_order=True),
        ),
        scaling_config=ray.train.ScalingConfig(
            num_workers=workers,
            use_gpu=use_gpu,
            resources_per_worker={"CPU": cpus, **({"GPU": 1} if use_gpu else {})},
            # GPUs talk faster within a node; CPU workers take the threads of all nodes.
            placement_strategy="PACK" if use_gpu else "SPREAD",
        ),
        run_config=ray.train.RunConfig(
            name=name,
            storage_path=storage,
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=1),
            failure_config=ray.train.FailureConfig(max_failures=2),
            worker_runtime_env={} if use_gpu else {"env_vars": allocator()},
        ),
    )


def _from_what_was_kept(loop: Loop, run: str, config: dict[str, Any]) -> Any:
    """The loop; it goes on where one stopped that ran in its driver, before Ray Train began."""
    global _kept
    _kept = kept_checkpoint(run) if ray.train.get_checkpoint() is None else None
    if _kept is not None:  # from now on it is Ray Train's
        ray.train.report({}, checkpoint=_kept if rank() == 0 else None)
    return loop(config)


_kept: ray.train.Checkpoint | None = None


def last_checkpoint() -> ray.train.Checkpoint | None:
    """What this run goes on from, the same on every worker; None if it begins."""
    return ray.train.get_checkpoint() or _kept


def allocator() -> dict[str, str]:
    """Environment in which a process allocates by jemalloc, where Ray ships it (Linux).

    Micro-batches have many shapes, and each leaves free blocks of other sizes, through which glibc
    searches for every aligned tensor: a worker needed more and more time for a step.
    """
    library = os.path.join(os.path.dirname(ray.__file__), "core", "libjemalloc.so")
    if "LD_PRELOAD" in os.environ or not os.path.exists(library):
        return {}
    return {"LD_PRELOAD": library}


def fit(trainer: TorchTrainer, mend: str) -> ray.train.Result:
    """Run a trainer; what a worker raised, or Ctrl-C, ends it as that error.

    Ray Train answers Ctrl-C by ending the process as if all were well, and leaves its handler
    in place for what comes after the training.

    Parameters
    ----------
    mend : what a user can do about too little memory.

    Raises
    ------
    InputError
        If memory or a disk is full, or a worker raised it.
    DamagedFile
        If a worker met one.
    """
    handler = signal.getsignal(signal.SIGINT)
    try:
        return trainer.fit()
    except SystemExit:
        raise KeyboardInterrupt from None
    except Exception as error:
        for failure in getattr(error, "worker_failures", {0: error}).values():
            cause = getattr(failure, "_base_exc", failure)  # Ray Train wraps what a worker raised
            if isinstance(cause, InputError):
                kind = DamagedFile if isinstance(cause, DamagedFile) else InputError
                raise kind(told(cause)) from None
        text = f"{type(error).__name__}: {error}"
        if any(words in text for words in OUT_OF_MEMORY):
            raise InputError(f"training ran out of memory; {mend}") from None
        if any(os.strerror(number) in text for number in NO_ROOM):
            raise InputError(
                "a disk is full that training writes to; make room at --output_dir, and run "
                "again: it continues"
            ) from None
        raise
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)


def threads_of(workers: int, share: float = 1.0) -> int:
    """Threads of one worker on a CPU, if all take that share of the cluster's cores."""
    return max(1, int(share * cluster_cores() / workers))


def prepare_device(threads: int) -> torch.device:
    """This worker's device; its results can be repeated."""
    torch.set_deterministic_debug_mode(REPEATABLE)
    if is_here():
        torch.set_num_threads(max(1, min(threads, os.cpu_count() or 1)))
        return torch.device("cpu")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # Micro-batches have many shapes, and oneDNN makes code for each; torch's usual 1024 forgets it
    # before it is used again, which took about a fifth of an epoch on two AVX-512 cores.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", ONEDNN_CACHE)
    device = ray.train.torch.get_device()
    if device.type == "cpu":
        here = ray.train.get_context().get_local_world_size()
        torch.set_num_threads(max(1, min(threads, (os.cpu_count() or 1) // here)))
    return device


def rank() -> int:
    """This worker's number."""
    return ray.train.get_context().get_world_rank()


def world() -> int:
    """Number of workers."""
    return dist.get_world_size() if dist.is_initialized() else 1


def add_gradients(parameters: Iterable[Tensor]) -> None:
    """Replace each gradient by the sum over all workers."""
    if world() == 1:
        return
    for parameter in parameters:
        if parameter.grad is None:  # this worker's share of the batch was empty
            parameter.grad = torch.zeros_like(parameter)
    gradients = [parameter.grad for parameter in parameters]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients])):
        gradient.copy_(part.view_as(gradient))


def same_everywhere(value: float, device: torch.device) -> float:
    """Worker 0's value, so that all take the same decision."""
    if world() == 1:
        return value
    tensor = torch.tensor(value, dtype=torch.float64, device=device)
    dist.broadcast(tensor, src=0)
    return tensor.item()


def report(metrics: dict[str, Any], state: Callable[[], dict[str, Any]]) -> None:
    """Hand Ray Train the metrics, and from worker 0 a checkpoint of the state."""
    if rank() != 0:
        ray.train.report(metrics)
        return
    content = BytesIO()  # written by itself, torch.save does not say that a disk is full
    torch.save(state(), content)
    if is_here():
        ray.train.report(metrics, checkpoint=keep(content.getvalue()))
        return
    with tempfile.TemporaryDirectory() as folder:
        write_atomically(os.path.join(folder, STATE_FILE), content.getvalue())
        ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))


def read_state(checkpoint: ray.train.Checkpoint) -> dict[str, Any]:
    """A checkpoint's state on the CPU, without unpickling objects."""
    with checkpoint.as_directory() as folder:
        return torch.load(os.path.join(folder, STATE_FILE), map_location="cpu", weights_only=True)
