import io

import fsspec
import matplotlib.image
import numpy as np
import pytest

from pipeline.comparison import figures
from pipeline.comparison.run_folders import ARMS, Run
from pipeline.comparison.statistics import Mover
from pipeline.evaluation.metrics import ood_metrics
from pipeline.molecules.drawing import drawings
from pipeline.runtime import plots
from pipeline.runtime.text import shortened

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MOLECULES = ["CCO", "c1ccccc1O", "CC(=O)Nc1ccc(O)cc1", "C1CCNCC1", "OCC(O)CO", "[Na+].[Cl-]"]


def make_run(arm, seed, epochs=3):
    rng = np.random.default_rng([seed, ARMS.index(arm)])
    smiles = MOLECULES * 5
    is_ood = np.arange(len(smiles)) % 2 == 1
    energies = rng.normal(size=len(smiles)) + is_ood
    dynamics = [
        {"epoch": float(i + 1), "loss": 0.7 / (i + 1), "val_auroc": 0.6, "misranked_share": 0.3,
         "mean_margin": 0.1 * i}
        for i in range(epochs)
    ]  # fmt: skip
    ids = [f"mol{i}" for i in range(len(smiles))]
    results = ood_metrics(is_ood.astype(int), energies)
    return Run(arm, seed, {}, results, dynamics, ids, smiles, is_ood, energies)


def make_mover(smiles="CCO", **changes):
    given = {"id": "mol1", "is_ood": True, "before": 0.25, "after": 0.75, "gain": 0.5}
    return Mover(smiles=smiles, **{**given, **changes})


def picture(uri):
    """A PNG file's grey levels (height, width), checked to be a picture and not an empty one."""
    with fsspec.open(str(uri), "rb") as file:
        content = file.read()
    assert content.startswith(SIGNATURE)
    grey = matplotlib.image.imread(io.BytesIO(content), format="png")[..., :3].mean(axis=-1)
    height, width = grey.shape
    assert 300 <= height <= 4000
    assert 500 <= width <= 4000
    assert 0.005 < (grey < 0.9).mean() < 0.5
    return grey


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_all_figures_are_written_and_named(tmp_path):
    runs = [make_run(arm, seed) for arm in ARMS for seed in (1, 2)]
    cosines = {1: np.linspace(0.9, 1, 30), 2: np.linspace(0.95, 1, 30)}
    written = figures.write_figures(str(tmp_path), runs, cosines, runs[0].is_ood)
    assert sorted(written) == files(tmp_path)
    assert set(written) == {"roc.png", "energies.png", "dynamics.png", "drift.png", "movers.png"}
    for name in written:
        picture(tmp_path / name)


def test_figures_go_to_a_uri_as_to_a_path(tmp_path):
    folder = f"memory://figures-{tmp_path.name}"
    runs = [make_run(arm, 1) for arm in ARMS]
    for name in figures.write_figures(folder, runs, {}, runs[0].is_ood):
        picture(f"{folder}/{name}")


@pytest.mark.parametrize("arm", ARMS)
def test_one_arm_gives_the_figures_that_need_no_other(tmp_path, arm):
    run = make_run(arm, 1, epochs=1)
    written = figures.write_figures(str(tmp_path), [run], {}, run.is_ood)
    assert written == ["roc.png", "energies.png", "dynamics.png"]
    assert sorted(written) == files(tmp_path)
    for name in written:
        picture(tmp_path / name)


def test_runs_without_dynamics_or_no_runs_write_no_such_figure(tmp_path):
    runs = [make_run(arm, 1, epochs=0) for arm in ARMS]
    written = figures.write_figures(str(tmp_path), runs, {}, runs[0].is_ood)
    assert "dynamics.png" not in written
    assert figures.write_figures(str(tmp_path / "none"), [], {}, np.zeros(0, bool)) == []
    assert not (tmp_path / "none").exists()


def test_colours_tell_the_arms_apart(tmp_path):
    figures.roc_figure([make_run("frozen", 1)], str(tmp_path / "frozen.png"))
    figures.roc_figure([make_run("finetuned", 1)], str(tmp_path / "finetuned.png"))
    for arm, color in figures.ARM_COLORS.items():
        pixels = matplotlib.image.imread(str(tmp_path / f"{arm}.png"))[..., :3]
        exact = {
            other: np.abs(pixels - np.array(to_rgb(code))).max(axis=-1) < 0.01
            for other, code in figures.ARM_COLORS.items()
        }
        assert exact[arm].sum() > 500, color
        assert sum(mask.sum() for other, mask in exact.items() if other != arm) == 0


def to_rgb(code):
    return [int(code[i : i + 2], 16) / 255 for i in (1, 3, 5)]


def test_equal_energies_and_unmoved_features_can_be_drawn(tmp_path):
    run = make_run("frozen", 1)
    run.energies[:] = 0.25
    figures.energy_figure([run], str(tmp_path / "energies.png"))
    unmoved = 1 + np.random.default_rng(0).normal(0, 1e-7, 30)
    figures.drift_figure({1: unmoved.astype(np.float32)}, run.is_ood, str(tmp_path / "drift.png"))
    picture(tmp_path / "energies.png")
    picture(tmp_path / "drift.png")


def test_histograms_are_shares_of_each_class_and_lose_no_molecule(monkeypatch, tmp_path):
    drawn = []
    stairs = figures.Axes.stairs

    def record(axes, values, edges, **style):
        drawn.append((values, edges))
        return stairs(axes, values, edges, **style)

    monkeypatch.setattr(figures.Axes, "stairs", record)
    runs = [make_run(arm, seed) for arm in ARMS for seed in (1, 2)]
    figures.energy_figure(runs, str(tmp_path / "energies.png"))
    beyond = np.linspace(-1, 1 + 1e-6, 30)  # rounding goes beyond 1
    figures.drift_figure({1: beyond}, runs[0].is_ood, str(tmp_path / "drift.png"))
    assert len(drawn) == 12  # 3 panels, 2 classes, filled and outlined
    for values, _ in drawn:
        assert values.sum() == pytest.approx(1)
    for panel in (drawn[:4], drawn[4:8], drawn[8:]):
        for _, edges in panel:
            np.testing.assert_array_equal(edges, panel[0][1])


@pytest.mark.parametrize("lost", [0, 1, 5])
def test_movers_fit_a_page_whatever_their_number(tmp_path, lost):
    path = tmp_path / "movers.png"
    gained = [make_mover(is_ood=False, before=0.8, after=0.1)]
    figures.movers_figure(gained, [make_mover(gain=-0.1)] * lost, str(path))
    rows = 1 + -(-lost // drawings.MOLECULES_A_ROW)
    assert picture(path).shape[0] == pytest.approx((2.5 * rows + 0.9) * plots.DPI, abs=2)


def test_a_structure_is_drawn_in_every_cell(tmp_path):
    path = tmp_path / "movers.png"
    figures.movers_figure([make_mover("c1ccccc1CCN")] * 4, [], str(path))
    grey = picture(path)
    middle = grey[int(0.3 * len(grey)) : int(0.75 * len(grey))]
    for cell in np.array_split(middle, drawings.MOLECULES_A_ROW, axis=1):
        assert (cell < 0.8).sum() > 200


def test_a_smiles_that_cannot_be_read_leaves_its_caption(tmp_path, capfd):
    path = tmp_path / "movers.png"
    names = ["no_molecule", "C1CC", "c1cccc1", ""]
    figures.movers_figure([make_mover(smiles) for smiles in names], [], str(path))
    picture(path)
    assert capfd.readouterr().err == ""


def test_long_ids_keep_both_ends_and_signs_of_formulas_are_text(tmp_path):
    short = shortened("a_data_set_of_some_length:ood_test:12345")
    assert len(short) == 30
    assert (short[:10], short[-10:]) == ("a_data_set", "test:12345")
    assert shortened("mol1") == "mol1"
    figures.movers_figure([make_mover(id=r"$\frac{$ _x_ 100%")], [], str(tmp_path / "movers.png"))


def test_global_state_of_matplotlib_stays_as_it_was(tmp_path):
    before = dict(matplotlib.rcParams)
    figures.roc_figure([make_run("frozen", 1)], str(tmp_path / "roc.png"))
    assert dict(matplotlib.rcParams) == before
