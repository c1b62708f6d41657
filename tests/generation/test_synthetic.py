"""Synthetic OOD features: the shell, candidates until enough are in it, and their generator."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from pipeline.generation import synthetic
from pipeline.generation.diffusion import sampling
from pipeline.generation.diffusion.denoiser import Denoiser
from pipeline.generation.diffusion.generator import Generator
from pipeline.generation.diffusion.noise import levels, scheduler_of
from pipeline.generation.diffusion.sampling import redraw
from pipeline.generation.diffusion.scaling import Scaling
from pipeline.generation.settings import ShellSettings
from pipeline.generation.shell import Candidates, Shell, in_shell
from pipeline.generation.synthetic import FILE, generator_settings, synthetic_ood
from pipeline.runtime.errors import InputError
from pipeline.runtime.train import training_in_steps
from tests.stopped import stopped_at_a_checkpoint

pytest.importorskip("diffusers")

WIDTH, KNOWN, HELD_OUT = 6, 160, 60
SMALL = ShellSettings(width=16, batch_size=32, steps=40, sampling_steps=10, max_attempts=3)


def rows(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, WIDTH)).astype(np.float32)


def distances(features: np.ndarray, known: np.ndarray, k: int) -> np.ndarray:
    """To the k-th nearest, in float64 and plainly."""
    apart = features.astype(np.float64)[:, None] - known.astype(np.float64)
    return np.sort(np.linalg.norm(apart, axis=2), axis=1)[:, k - 1]


# --- the shell ----------------------------------------------------------------------------------


@pytest.mark.parametrize("neighbours", [1, 5])
def test_p_values_are_the_share_of_held_out_features_as_far_out(neighbours):
    known, held_out = rows(KNOWN, 0), rows(HELD_OUT, 1)
    features = np.concatenate([rows(50, 2), 3 * rows(50, 3), held_out[:5], 100 + rows(1, 4)])
    shell = Shell.fit(known, held_out, ShellSettings(neighbours=neighbours))
    theirs, ours = (distances(each, known, neighbours) for each in (held_out, features))
    # a tie counts as one that is as far out, up to the rounding of distances
    expected = [(1 + (theirs >= one - 1e-9).sum()) / (HELD_OUT + 1) for one in ours]
    found = shell.p_values(features)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert found[-1] == shell.smallest == 1 / (HELD_OUT + 1)
    np.testing.assert_array_equal(shell.holds(found), (found >= 0.001) & (found <= 0.05))


def test_new_rows_of_the_same_kind_are_in_the_shell_as_rarely_as_it_says():
    shares = []
    for seed in range(30):
        shell = Shell.fit(rows(80, 3 * seed), rows(99, 3 * seed + 1), ShellSettings())
        shares.append(shell.holds(shell.p_values(rows(200, 3 * seed + 2))).mean())
    assert np.mean(shares) == pytest.approx(0.05, abs=0.015)


def test_a_bound_that_held_out_features_cannot_tell_is_told(caplog):
    caplog.set_level(logging.INFO)
    Shell.fit(rows(40, 0), rows(999, 1), ShellSettings())
    assert "no p-value is below" not in caplog.text
    Shell.fit(rows(40, 0), rows(19, 1), ShellSettings())
    assert "19 held-out ID molecules no p-value is below 0.0500" in caplog.text
    with pytest.raises(InputError, match="18 ID molecules are held out.*need at least 19") as error:
        Shell.fit(rows(40, 0), rows(18, 1), ShellSettings())
    assert "\n" not in str(error.value)


# --- candidates until there are enough ----------------------------------------------------------


def test_both_roles_are_in_the_shell_and_made_of_different_rows():
    known = rows(KNOWN, 0)
    shell = Shell.fit(known, rows(HELD_OUT, 1), ShellSettings())
    seen: dict[int, list[np.ndarray]] = {0: [], 1: []}

    def propose(sources: np.ndarray, numbers: tuple[int, ...]) -> Candidates:
        seen[numbers[0]].append(sources)
        return Candidates(1.6 * sources, np.arange(len(sources)))

    made = in_shell(known, shell, 100, propose, 5, 0)
    again = in_shell(known, shell, 100, propose, 5, 0)
    sources = [{row.tobytes() for row in np.concatenate(each)} for each in seen.values()]
    assert not sources[0] & sources[1]
    assert len(sources[1]) <= KNOWN // 5
    assert sources[0] | sources[1] <= {row.tobytes() for row in known}
    for sample, count in ((made.train, 80), (made.validation, 20)):
        assert len(sample.features) == len(sample.steps) == count
        np.testing.assert_array_equal(shell.p_values(sample.features), sample.p_values)
        assert shell.holds(sample.p_values).all()
    assert made.report == again.report
    assert made.report["train"] == 80 and made.report["shortfall"] == 0
    np.testing.assert_array_equal(made.train.features, again.train.features)


def test_what_is_missing_is_told_and_not_filled_in(caplog):
    known = rows(KNOWN, 0)
    shell = Shell.fit(known, rows(HELD_OUT, 1), ShellSettings())
    inside = known[0] + np.float32(0)  # in the midst of the training rows
    shift = np.linspace(0, 8, 400)[:, None].astype(np.float32) * np.eye(WIDTH, dtype=np.float32)[0]
    places = np.flatnonzero(shell.holds(shell.p_values(inside + shift)))
    outside = (inside + shift)[places[len(places) // 2]]

    def few(sources: np.ndarray, numbers: tuple[int, ...]) -> Candidates:
        made = np.repeat(inside[None], len(sources), axis=0)
        made[:most] = outside
        return Candidates(made, np.zeros(len(sources), int))

    most = 12
    made = in_shell(known, shell, 100, few, 3, 0)
    assert (len(made.train.features), len(made.validation.features)) == (36, 20)
    assert made.report["shortfall"] == 44
    assert "44 of 100 features are missing" in caplog.text
    assert (made.train.features == outside).all()
    most = 3
    with pytest.raises(InputError, match=r"18 of .* candidates .*--ood background") as error:
        in_shell(known, shell, 100, few, 3, 0)
    assert "\n" not in str(error.value)


# --- features noised and denoised ---------------------------------------------------------------


@pytest.fixture(scope="module")
def says_zero() -> Generator:
    """A network that has learned nothing tells a velocity of 0."""
    settings = generator_settings(SMALL, 0)
    scaling = Scaling.fit(rows(KNOWN, 0) * 3 + 1, "off")
    network = Denoiser(WIDTH, 1, settings.width, settings.blocks)
    return Generator(settings, ("ID",), scaling, network.state_dict())


def test_redrawn_features_are_those_of_the_formula(says_zero):
    """DDIM with velocity 0: x0 = α x and ε = σ x, so x goes on as (α' α + σ' σ) x."""
    steps = scheduler_of(says_zero.settings).timesteps.numpy()
    signal, noise = levels(says_zero.settings)
    starts = np.random.default_rng(3).choice(steps, 40)
    features = rows(40, 7) * 3 + 1
    cold = np.zeros(40)
    found = redraw(says_zero, features, np.zeros(40, int), starts, cold, (0,))
    x = says_zero.scaling.inward(features).astype(np.float64) * signal[starts][:, None]
    for step, after in zip(steps, [*steps[1:], None]):
        ahead = (1.0, 0.0) if after is None else (signal[after], noise[after])
        factor = ahead[0] * signal[step] + ahead[1] * noise[step]
        x[starts >= step] *= factor
    expected = says_zero.scaling.outward(x.astype(np.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_noise_grows_with_the_temperature_and_does_not_depend_on_threads(says_zero, monkeypatch):
    features, steps = rows(30, 7), scheduler_of(says_zero.settings).timesteps.numpy()
    starts = np.resize(steps, 30)
    given = (says_zero, features, np.zeros(30, int), starts)
    monkeypatch.setitem(sampling.SHARD_ROWS, "cpu", 8)
    cold, warm, hot = (redraw(*given, np.full(30, heat), (5,)) for heat in (0.0, 1.0, 2.0))
    np.testing.assert_allclose(hot - cold, 2 * (warm - cold), rtol=1e-3, atol=1e-4)
    assert np.abs(warm - cold).min(axis=1).max() > 0.1
    monkeypatch.setattr(sampling, "usable_cores", lambda: 1)
    np.testing.assert_array_equal(redraw(*given, np.full(30, 1.0), (5,)), warm)
    assert (redraw(*given, np.full(30, 1.0), (6,)) != warm).all()


# --- all of it ----------------------------------------------------------------------------------


def made_in(folder: Path, seed: int = 0, count: int = 60) -> synthetic.Synthetic:
    return synthetic_ood(rows(KNOWN, 0), rows(HELD_OUT, 1), count, SMALL, seed, str(folder))


@pytest.fixture(scope="module")
def made(ray_session, tmp_path_factory) -> tuple[Path, synthetic.Synthetic]:
    folder = tmp_path_factory.mktemp("synthetic")
    return folder, made_in(folder)


def same(ours: synthetic.Synthetic, theirs: synthetic.Synthetic) -> None:
    for mine, other in ((ours.train, theirs.train), (ours.validation, theirs.validation)):
        for one, two in zip(mine, other):
            np.testing.assert_array_equal(one, two)


def test_what_is_made_lies_in_the_shell_and_is_told(made):
    found = made[1]
    shell = Shell.fit(rows(KNOWN, 0), rows(HELD_OUT, 1), SMALL)
    steps = scheduler_of(generator_settings(SMALL, 0)).timesteps
    for sample in (found.train, found.validation):
        assert shell.holds(shell.p_values(sample.features)).all()
        assert set(sample.steps.tolist()) <= set(steps.tolist())
    report = found.report
    assert json.loads(json.dumps(report)) == report
    assert report["train"] + report["validation"] + report["shortfall"] == report["asked"] == 60
    assert report["shell"]["held_out"] == HELD_OUT and report["shell"]["id_train"] == KNOWN
    assert 1 / 61 <= report["p_values"]["least"] <= report["p_values"]["most"] <= 0.05


def test_a_rerun_takes_over_what_was_drawn_and_no_other_does(made, monkeypatch):
    folder, first = made

    def trains(*_, **__):
        raise InterruptedError

    monkeypatch.setattr(synthetic, "fit_generator", trains)
    again = made_in(folder)
    same(again, first)
    assert again.report == first.report
    for changes in ({"seed": 1}, {"count": 61}):
        with pytest.raises(InterruptedError):
            made_in(folder, **changes)
    content = (folder / FILE).read_bytes()
    (folder / FILE).write_bytes(content[: len(content) // 2])
    with pytest.raises(InterruptedError):
        made_in(folder)
    (folder / FILE).write_bytes(content)


def test_a_run_that_was_stopped_goes_on_to_the_same_features(made, tmp_path):
    with stopped_at_a_checkpoint(training_in_steps):
        made_in(tmp_path)
    same(made_in(tmp_path), made[1])
    assert not list((tmp_path / ".ray_train").glob("*/*"))
