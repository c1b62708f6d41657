"""Training a generator: it learns, goes on where it was stopped, and shares batches fairly."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import ray
import torch

from pipeline.generation.diffusion import fitting, loop
from pipeline.generation.diffusion.draws import Rows
from pipeline.generation.diffusion.fitting import Classed, fit_generator
from pipeline.generation.diffusion.generator import Generator
from pipeline.generation.diffusion.loop import GeneratorJob, GeneratorState
from pipeline.generation.diffusion.state import averaging
from pipeline.runtime.errors import InputError
from pipeline.runtime.train import training_in_steps
from tests.generation.conftest import NAMES, SETTINGS, rings


def test_it_learns_more_than_a_gaussian_of_each_class(trained):
    fitted, folder = trained
    assert fitted.better_than_linear and fitted.losses["linear"] < fitted.losses["zero"] + 0.01
    assert (folder / "generator_curves.csv").read_text().count("\n") == 3
    assert sum(line["model_loss"] - line["linear_loss"] for line in fitted.loss_by_time) < 0


def test_one_that_learned_no_more_is_told_by_rows_that_chose_nothing(ray_session, tmp_path, caplog):
    # two Gaussians of different scale: nothing is to be known that their Gaussians do not know
    rng = np.random.default_rng(0)
    classes = np.arange(900) % 2
    rows = rng.normal(size=(900, 2)) @ [[1.0, 0.9, 0.9], [0.0, 0.4, 0.5]]
    data = Classed((rows * (1 + 3 * classes[:, None])).astype(np.float32), classes)
    parts = [Classed(data.features[p::3], data.classes[p::3]) for p in range(3)]
    fitted = fit_generator(*parts[:2], NAMES, SETTINGS, str(tmp_path), fresh=parts[2])
    assert not fitted.better_than_linear
    assert "learned nothing that a Gaussian of each class does not know" in caplog.text
    assert fitted.outcome["history"][-1]["linear_loss"] != fitted.losses["linear"]


def test_a_loss_that_is_no_number_names_the_learning_rate(ray_session, tmp_path):
    wild = replace(SETTINGS, lr=1e25, steps=5, checkpoint_every=5, grad_clip=1e9)
    with pytest.raises(InputError, match=r"the generator's loss is nan after 5 steps; lower --lr"):
        fit_generator(rings(60, 1), rings(60, 2), NAMES, wild, str(tmp_path))


def test_a_stopped_run_goes_on_to_the_same_weights(trained, tmp_path, monkeypatch):
    plain, (report, stops) = trained[0].generator, (training_in_steps.report, [])

    def stopping(metrics, content):
        report(metrics, content)
        if not stops:
            stops.append(metrics["step"])
            raise InputError("stopped half way")

    monkeypatch.setattr(training_in_steps, "report", stopping)
    data = rings(600, 1), rings(200, 2), NAMES, SETTINGS, str(tmp_path)
    with pytest.raises(InputError, match="stopped half way"):
        fit_generator(*data)
    again = fit_generator(*data)
    assert again.outcome["resumed_after_step"] == stops[0] == 120
    for name, tensor in plain.tensors.items():
        torch.testing.assert_close(again.generator.tensors[name], tensor, rtol=0, atol=0)
    # until it is forgotten, it is not trained again; another seed is another run
    assert fit_generator(*data).outcome["resumed_after_step"] == SETTINGS.steps
    again.forget()
    other = fit_generator(*data[:3], replace(SETTINGS, seed=1, steps=1), str(tmp_path))
    assert other.outcome["resumed_after_step"] == 0
    other.forget()
    assert not any((tmp_path / ".ray_train").iterdir())


def test_workers_shares_add_up_to_one_workers_gradient(ray_session, monkeypatch):
    data = rings(100, 1)
    rows = ray.put((Rows(data.features, data.classes), None))
    settings = replace(SETTINGS, gradient_accumulation_steps=2, grad_clip=1e9)
    job = GeneratorJob(settings, rows, 2, "fp32", 1, "")

    def gradients(rank, world):
        monkeypatch.setattr(loop, "rank", lambda: rank)
        monkeypatch.setattr(loop, "world", lambda: world)
        monkeypatch.setattr(training_in_steps, "add_gradients", lambda parameters: None)
        monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor: None)
        state = GeneratorState(job, torch.device("cpu"))
        torch.nn.init.normal_(state.model.outward.weight)  # zero, no gradient goes through it
        loss = float(state.one_step()["loss"])
        return loss, [p.grad for p in state.model.parameters() if p.grad is not None]

    torch.manual_seed(0)
    whole = gradients(0, 1)
    torch.manual_seed(0)
    parts = [gradients(rank, 3) for rank in range(3)]
    assert sum(loss for loss, _ in parts) == pytest.approx(whole[0], rel=1e-5)
    for one, *shares in zip(whole[1], *(grads for _, grads in parts)):
        torch.testing.assert_close(sum(shares), one, rtol=1e-4, atol=1e-5)


def test_the_average_forgets_where_training_began():
    average, weight = torch.zeros(3), torch.ones(3)
    for number in range(1, 41):
        averaging(0.998)([average], [weight], torch.tensor(number))
    assert average.min() > 0.999  # with 0.998 alone it would be 0.08


def test_classes_are_drawn_alike_often_unless_asked_otherwise(ray_session):
    data = rings(1000, 1)
    rare = Rows(data.features[:520], np.repeat([0, 1], [500, 20]))
    for how, share in (("balanced", 0.5), ("as_is", 20 / 520)):
        job = GeneratorJob(
            replace(SETTINGS, class_sampling=how), ray.put((rare, None)), 2, "fp32", 1, ""
        )
        made = GeneratorState(job, torch.device("cpu"))
        chosen = made._chosen(np.random.default_rng(0), 4000)
        assert (rare.classes[chosen] == 1).mean() == pytest.approx(share, abs=0.03)


def test_the_folder_is_read_back_without_pickle(trained, tmp_path):
    generator = trained[0].generator
    generator.write(str(tmp_path / "kept"))
    again = Generator.read(str(tmp_path / "kept"))
    assert (again.classes, again.settings) == (generator.classes, generator.settings)
    for name, tensor in generator.tensors.items():
        torch.testing.assert_close(again.tensors[name], tensor)
    assert sorted(p.suffix for p in (tmp_path / "kept").iterdir()) == [
        ".json", ".safetensors", ".safetensors"
    ]  # fmt: skip
    with pytest.raises(InputError, match="no generator.json in it"):
        Generator.read(str(tmp_path))


def test_without_diffusers_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(InputError, match=r"pip install 'molsieve\[generation\]'"):
        fitting.fit_generator(rings(60, 1), rings(60, 2), NAMES, SETTINGS, str(tmp_path))
