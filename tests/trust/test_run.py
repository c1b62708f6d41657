"""jobs.trust judges the scores of a user's table, and says what is left out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from rdkit import Chem

from jobs.__main__ import main
from pipeline.runtime.errors import InputError
from pipeline.trust.judged import too_narrow
from pipeline.trust.run import run_trust
from pipeline.trust.settings import TrustSettings
from tests.commands import REPOSITORY


@pytest.fixture(scope="module")
def smiles() -> list[str]:
    lines = (REPOSITORY / "tests/data/moses.smi").read_text().split()
    found = [text for text in lines if Chem.MolFromSmiles(text)]
    return list(dict.fromkeys(found))[:160]


@pytest.fixture(scope="module")
def table(smiles, tmp_path_factory) -> Path:
    """120 rows: a good score, the same with the wrong sign, and two rows that are left out."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("trust")
    sigma = rng.uniform(0.1, 2, size=len(smiles))
    y = rng.normal(size=len(smiles))
    predicted = y + sigma * rng.normal(size=len(smiles))
    rows = [
        f"{s},{p},{v},{g},{-g},{p - 1},{p + 1},{'ood_test' if i % 3 == 0 else 'test'}"
        for i, (s, p, v, g) in enumerate(zip(smiles[:120], predicted, y, sigma))
    ]
    rows += ["not a molecule,1,1,1,1,1,1,test", f"{smiles[121]},,1,1,1,1,1,test"]
    path = folder / "table.csv"
    path.write_text("\n".join(["smiles,pred,y,good,wrong,lo,hi,part", *rows]) + "\n")
    (folder / "train.smi").write_text("\n".join([*smiles[120:], smiles[0]]) + "\n")
    return path


def asked(table: Path, output: Path, **more) -> TrustSettings:
    given = {"prediction_column": "pred", "label_column": "y", "bootstrap_samples": 100, **more}
    return TrustSettings(data_file=str(table), output_dir=str(output), **given)


def test_a_good_score_is_told_from_a_wrong_one(table, tmp_path):
    results = run_trust(
        asked(
            table, tmp_path, score_columns=["wrong"], spread_column="good", lower_column="lo",
            upper_column="hi", split_column="part",
        )
    )  # fmt: skip
    scores = results["scores"]
    assert scores["spread"]["spearman"] > 0.4 and scores["spread"]["auroc_worst"] > 0.7
    assert scores["wrong"]["spearman"] == pytest.approx(-scores["spread"]["spearman"])
    assert (scores["oracle"]["spearman"], scores["oracle"]["auroc_worst"]) == (1, 1)
    assert abs(scores["random"]["spearman"]) < 0.25
    assert any("wrong: higher values go with smaller errors" in w for w in results["warnings"])
    assert results["left_out"] == {"no molecule": 1, "no prediction": 1}
    assert (results["molecules"], results["in_domain"]) == (120, 80)
    given = results["intervals"]["given"]
    assert given["in_domain"]["width"] == pytest.approx(2)
    held = round(80 * given["in_domain"]["coverage"])
    assert given["in_domain"]["rows"] == 80 and held < 65
    warnings = " ".join(results["warnings"])
    assert f"own intervals hold {held} of 80 values in domain" in warnings
    scaled, constant = results["intervals"]["spread"], results["intervals"]["constant"]
    assert scaled["in_domain"]["coverage"] == pytest.approx(0.9, abs=0.06)
    assert scaled["in_domain"]["width"] < constant["in_domain"]["width"]
    assert "negative" in results["intervals"]["wrong"]["not_made"]
    kept = json.loads((tmp_path / "trust.json").read_text())
    assert kept["scores"].keys() == scores.keys()
    assert "122, 120 judged" in (tmp_path / "trust.txt").read_text()
    assert (tmp_path / "retention.png").stat().st_size > 10_000


def test_intervals_that_may_hold_what_they_should_draw_no_warning():
    def told(coverage, rows):
        return too_narrow({"out_of_domain": {"coverage": coverage, "rows": rows}}, 0.1)

    assert told(0.88, 50) == [] == told(0.95, 1000) == too_narrow({}, 0.1)
    (warning,) = told(0.75, 100)  # Wilson's interval, by its formula in float64
    low, high = (
        (0.75 + 1.95996**2 / 200 + sign * 1.95996 * np.sqrt(0.75 * 0.25 / 100 + 1.95996**2 / 4e4))
        / (1 + 1.95996**2 / 100)
        for sign in (-1, 1)
    )
    assert f"75 of 100 values out of domain, 75.0% [{low:.1%}, {high:.1%}]" in warning


def test_a_training_set_adds_tanimoto_and_the_domain(table, tmp_path):
    train = table.with_name("train.smi")
    results = run_trust(asked(table, tmp_path, id_file=str(train)))
    assert {"Tanimoto distance, nearest", "Tanimoto distance, mean of 5"} < results["scores"].keys()
    assert any("1 molecules of the table are in --id_file" in note for note in results["notes"])
    assert 0 < results["in_domain"] < 120 and "0.4" in results["domain_by"]


def test_mistakes_are_told(table, tmp_path, capsys):
    for more, told in (
        ({"prediction_column": "nope"}, "no column 'nope'.*--prediction_column"),
        ({"score_columns": ["nope"]}, "--score_columns"),
        ({"lower_column": "lo"}, "go together"),
        ({"label_column": "part"}, "no numbers"),
        ({"score_columns": ["random"]}, "the name is taken"),
    ):
        with pytest.raises(InputError, match=told):
            run_trust(asked(table, tmp_path, **more))
    short = tmp_path / "short.csv"
    short.write_text("\n".join(table.read_text().splitlines()[:9]) + "\n")
    flags = ["--prediction_column", "pred", "--label_column", "y", "--output_dir", str(tmp_path)]
    assert main("molsieve", ["trust", "--data_file", str(short), *flags]) == 2
    assert "8 of 8 rows can be judged, at least 20 are needed" in capsys.readouterr().err
