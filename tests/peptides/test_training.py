"""Batches by length; training learns, goes on where it was stopped, and shares fairly."""

import csv
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.peptides import tuning
from pipeline.peptides.diffusion import loop
from pipeline.peptides.diffusion.batches import Batches, made_ahead
from pipeline.peptides.diffusion.fitting import CURVES, baselines, fit_peptides
from pipeline.peptides.diffusion.generator import PeptideGenerator
from pipeline.peptides.diffusion.loop import PeptideJob, PeptideState, check_compiler, compiled
from pipeline.peptides.diffusion.network import PeptideModel
from pipeline.peptides.diffusion.residues import padded_length, parts_of
from pipeline.peptides.run import run_peptides
from pipeline.peptides.settings import GeneratePeptidesSettings, PeptideGeneratorSettings
from pipeline.runtime.errors import InputError
from pipeline.runtime.telemetry import DeviceLoad
from pipeline.runtime.train import training_in_steps
from tests.peptides.conftest import COLUMNS, NAMES, SETTINGS, peptides_of
from tests.stopped import stopped_at_a_checkpoint


def test_a_batch_has_peptides_of_one_length_bucket_and_a_bounded_number_of_residues(made_up):
    train = made_up[0]
    make = Batches(train, SETTINGS, any_class=2)
    known = {bytes(train.tokens[a:b]) for a, b in zip(train.starts, train.starts[1:])}
    for number in range(12):
        batch = make(number)
        assert batch.real.numel() <= SETTINGS.batch_residues
        lengths = batch.real.sum(dim=1)
        assert {padded_length(int(n)) for n in lengths} == {batch.real.shape[1]}
        first = batch.tokens[0, : lengths[0]].numpy().tobytes()
        assert first in known and not batch.latents[~batch.real].any()
        again = make(number)
        assert torch.equal(again.latents, batch.latents) and again.seed == batch.seed


@pytest.mark.parametrize("how", ["balanced", "as_is"])
def test_each_peptide_is_seen_as_often_as_its_class_says_whatever_its_length(how):
    train, _ = peptides_of(90, 3)
    rare = train._replace(classes=(np.arange(90) % 9 == 1).astype(np.int64))
    settings = replace(SETTINGS, class_sampling=how, class_dropout=0.0)
    make = Batches(rare, settings, any_class=2)
    share = (make.often * make.rows)[:, None] * [
        [(shares * (rare.classes[rows] == c)).sum() for c in (0, 1)]
        for rows, shares in zip(make.members, map(lambda s: np.diff(s, prepend=0), make.steps))
    ]
    seen = share.sum(axis=0) / share.sum()
    assert seen == pytest.approx([0.5, 0.5] if how == "balanced" else [80 / 90, 10 / 90])
    each = np.concatenate([
        make.often[b] * make.rows[b] * np.diff(make.steps[b], prepend=0)
        for b in range(len(make.rows))
    ])  # fmt: skip
    of_common = each[np.concatenate([rare.classes[rows] == 0 for rows in make.members])]
    assert of_common.max() == pytest.approx(of_common.min())  # of any length


def test_lengths_are_padded_by_little_to_few_shapes():
    padded = [padded_length(n) for n in range(1, 1023)]
    assert all(n <= p <= max(n + 7, 1.26 * n) for n, p in zip(range(1, 1023), padded))
    assert len(set(padded)) < 32
    lengths = np.sort(np.random.default_rng(0).integers(5, 90, size=70))
    parts = parts_of(lengths, 400)
    assert [n for part in parts for n in lengths[part]] == lengths.tolist()
    assert all(len(lengths[p]) * padded_length(int(lengths[p].max())) <= 400 for p in parts)
    assert [p.stop - p.start for p in parts_of(np.array([500, 500]), 100)] == [1, 1]


def test_batches_come_in_order_from_several_threads_and_a_fault_is_raised():
    assert list(made_ahead(lambda n: n * n, range(40), threads=3)) == [n * n for n in range(40)]
    with pytest.raises(ZeroDivisionError):
        list(made_ahead(lambda n: 1 // (3 - n), range(9), threads=2))


def test_the_share_of_time_that_waits_is_that_of_the_steps(monkeypatch):
    clock = iter([0.0, 0.0, 1.0, 4.0, 10.0, 13.0, 14.0])  # made, [asked, there, done] twice
    monkeypatch.setattr("pipeline.runtime.telemetry.time.perf_counter", lambda: next(clock))
    monkeypatch.setattr("pipeline.runtime.telemetry.gpu_load", lambda: {"gpu_utilisation": 80.0})
    load = DeviceLoad()
    for _ in range(2):
        with load.waiting():
            pass
        load.step_done()
    assert load.take() == {"waiting_share": 0.5, "gpu_utilisation": 80.0}  # 4 s of 4 + 4
    assert load.take()["waiting_share"] == 0


def test_it_learns_and_says_how(trained, made_up):
    fitted, folder = trained
    best = fitted.at_best
    assert best["heldout_loss"] < 0.85 * best["zero_loss"]
    assert best["linear_loss"] < 0.9 * best["zero_loss"]
    with open(folder / CURVES) as file:
        lines = list(csv.DictReader(file))
    assert [line["step"] for line in lines] == ["60", "120"]
    assert 0 <= fitted.waiting_share < 1 and float(lines[0]["waiting_share"]) < 1


def test_the_linear_guess_is_better_than_none_and_zeros_loss_is_the_targets(made_up):
    train, held_out, _ = made_up
    found = baselines(train, held_out, SETTINGS)
    # velocities of standardised latents have a mean square near 1, whatever the step
    assert found["zero_loss"] == pytest.approx(1, abs=0.1)
    assert found["linear_loss"] < found["zero_loss"]


def test_a_stopped_run_goes_on_to_the_same_weights(ray_session, made_up, tmp_path):
    train, held_out, scaling = made_up
    few = replace(SETTINGS, steps=6, checkpoint_every=3, gradient_accumulation_steps=2)
    data = train, held_out, NAMES, scaling, few
    plain = fit_peptides(*data, str(tmp_path / "plain"))
    with stopped_at_a_checkpoint(training_in_steps):
        fit_peptides(*data, str(tmp_path / "stopped"))
    again = fit_peptides(*data, str(tmp_path / "stopped"))
    assert (plain.outcome["resumed_after_step"], again.outcome["resumed_after_step"]) == (0, 3)
    for name, tensor in plain.generator.tensors.items():
        torch.testing.assert_close(again.generator.tensors[name], tensor, rtol=0, atol=0)
    again.forget()
    assert not any((tmp_path / "stopped" / ".ray_train").iterdir())
    assert not again.better_than_linear and again.at_best["step"] in (3, 6)


def job_of(settings, classes=2):
    """A job whose peptides are given otherwise."""
    return PeptideJob(settings, None, {}, classes, "fp32", 1, "")


@pytest.mark.parametrize("accumulated", [1, 2])
def test_workers_shares_add_up_to_one_workers_gradient(made_up, monkeypatch, accumulated):
    settings = replace(SETTINGS, gradient_accumulation_steps=accumulated, grad_clip=1e9)
    structured, _ = peptides_of(120, 1, structures=lambda t: np.stack([t, t % 3], axis=1) / 10)
    monkeypatch.setattr(loop, "_peptides", lambda job: (structured, structured))

    def gradients(rank, world):
        made = PeptideState(job_of(settings), torch.device("cpu"), slice(rank, None, world))
        torch.manual_seed(0)
        for parameter in made.model.parameters():
            torch.nn.init.normal_(parameter, std=0.2)  # zeros let no gradient through
        loss = float(made.one_step()["loss"])
        return float(loss), [p.grad for p in made.model.parameters()]

    whole, parts = gradients(0, 1), [gradients(rank, 3) for rank in range(3)]
    assert sum(loss for loss, _ in parts) == pytest.approx(whole[0], rel=1e-5)
    for one, *shares in zip(whole[1], *(grads for _, grads in parts)):
        if one is not None:
            total = sum(share for share in shares if share is not None)
            torch.testing.assert_close(total, one, rtol=1e-3, atol=1e-4)


def test_held_out_losses_are_told_with_structures_and_without(made_up, monkeypatch):
    structured, _ = peptides_of(60, 1, structures=lambda t: np.stack([t, t % 3], axis=1) / 10)
    monkeypatch.setattr(loop, "_peptides", lambda job: (structured, structured))
    made = PeptideState(job_of(SETTINGS), torch.device("cpu"))
    for parameter in made.average.module.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    told = made.held_out()
    assert told["heldout_structures"] == structured.has_structure.sum() == 40
    with_them, without = (
        told[f"heldout_loss_{name}"] for name in ("with_structures", "structures_hidden")
    )
    assert abs(with_them - without) > 1e-4
    # the rest, without a structure, counts in heldout_loss alone
    known = structured.has_structure
    residues = structured.lengths[known].sum(), structured.lengths[~known].sum()
    state = PeptideState(job_of(SETTINGS), torch.device("cpu"))
    state.average = made.average
    monkeypatch.setattr(loop, "_kinds", lambda batch, noise: {
        "heldout_loss": (batch.part(~batch.has_structure), noise[~batch.has_structure])
    })  # fmt: skip
    of_others = state.held_out()["heldout_loss"]
    mean = np.average([without, of_others], weights=residues)
    assert told["heldout_loss"] == pytest.approx(mean, rel=1e-5)
    monkeypatch.undo()
    plain, _ = peptides_of(60, 1)
    monkeypatch.setattr(loop, "_peptides", lambda job: (plain, plain))
    assert (
        "heldout_loss_with_structures"
        not in PeptideState(job_of(SETTINGS), torch.device("cpu")).held_out()
    )


def test_a_hidden_structure_is_hidden_as_often_as_asked():
    structured, _ = peptides_of(60, 1, structures=lambda t: np.stack([t, t % 3], axis=1) / 10)
    never = Batches(structured, replace(SETTINGS, structure_dropout=0.0), 2)
    some = Batches(structured, replace(SETTINGS, structure_dropout=0.5), 2)
    known = [float(b(n).has_structure.float().mean()) for b in (never, some) for n in range(20)]
    assert np.mean(known[:20]) == pytest.approx(2 / 3, abs=0.07)
    assert np.mean(known[20:]) == pytest.approx(1 / 3, abs=0.07)


def test_the_folder_is_read_back_without_pickle(trained, tmp_path):
    generator = trained[0].generator
    generator.write(str(tmp_path / "kept"))
    again = PeptideGenerator.read(str(tmp_path / "kept"))
    assert again.settings == generator.settings and again.lengths == generator.lengths
    assert (again.classes, again.structure_columns) == (NAMES, 0)
    for name, tensor in generator.tensors.items():
        torch.testing.assert_close(again.tensors[name], tensor)
    with pytest.raises(InputError, match="jobs.generate_peptides"):
        PeptideGenerator.read(str(tmp_path))


def test_each_length_is_compiled_once_and_gives_the_same_loss(made_up):
    settings = replace(SETTINGS, width=16, blocks=1, guidance=1.0)
    lengths, compilations = range(8, 80, 8), []  # one more than torch compiles by default

    def backend(graph, inputs):
        compilations.append(graph)
        return graph.forward

    torch.manual_seed(0)
    plain = PeptideModel(COLUMNS, 2, 0, settings).denoiser
    for parameter in plain.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    quick = compiled(plain, len(lengths), backend)
    drawn = torch.Generator().manual_seed(0)
    for _ in range(2):
        for length in lengths:
            x = torch.randn((3, length, COLUMNS), generator=drawn)
            real, ones = torch.ones(3, length, dtype=torch.bool), torch.ones(3, dtype=torch.int64)
            given = x, 0 * x, real, ones, ones
            torch.testing.assert_close(quick(*given), plain(*given))
    assert len(compilations) == len(lengths) == 9


def test_without_a_compiler_it_is_told_how_to_go_on(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(InputError, match="--compile: no compiler no-such-compiler is there"):
        check_compiler(torch.device("cpu"))
    monkeypatch.setenv("CXX", sys.executable)
    check_compiler(torch.device("cpu"))


def test_settings_that_cannot_be_are_told():
    with pytest.raises(InputError, match="--width 100 is no multiple of twice --heads 4"):
        PeptideGeneratorSettings(width=100)
    with pytest.raises(InputError, match="--shuffle_structures needs --structure_table"):
        GeneratePeptidesSettings(data_file="a.fasta", shuffle_structures=True)
    with pytest.raises(InputError, match="--residues extended"):
        GeneratePeptidesSettings(data_file="a.fasta", residues="extended")


def test_without_a_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(InputError, match=r"pip install 'molsieve\[peptides\]'"):
        run_peptides(GeneratePeptidesSettings(data_file="a.fasta"))


def test_sizes_of_batches_are_tried_until_memory_is_short(made_up, monkeypatch):
    monkeypatch.setattr(loop, "_peptides", lambda job: made_up[:2])
    monkeypatch.setitem(tuning.SIZES, "cpu", [8, 64, 256, 1024, 4096])
    peaks = iter([1.0, 1.5, 3.0])
    lengths = []
    of_bucket = Batches.of_bucket
    monkeypatch.setattr(
        Batches, "of_bucket", lambda *given: lengths.append(given[1]) or of_bucket(*given)
    )
    monkeypatch.setattr(tuning.telemetry, "peak_resident_memory_gb", lambda: next(peaks))
    trials = tuning.trials_of(job_of(SETTINGS), "cpu", seconds=0.01, memory_gb=2)
    assert [(t.batch_residues, t.memory_gb) for t in trials] == [(64, 1.0), (256, 1.5)]
    told = tuning.not_tried(tuning.SIZES["cpu"], [trial.batch_residues for trial in trials])
    assert told == [
        "not tried: batches of 8 residues, which do not hold the longest peptide",
        "not tried: batches of 1,024, 4,096 residues, which take more memory than there is",
    ]
    assert set(lengths) == set(range(3))  # padded to 8, 16 and 24
    assert all(t.rate > 0 and 0 <= t.waiting_share < 1 for t in trials)
    even = [tuning.BatchTrial(size, 1, rate, 0) for size, rate in ((1, 50), (2, 99), (4, 100))]
    assert tuning.best_of(even, None, lambda trial: trial.batch_residues).batch_residues == 2

    def full(self):
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr(PeptideState, "one_step", full)
    assert tuning.trials_of(job_of(SETTINGS), "cpu", seconds=0.01, memory_gb=None) == []
