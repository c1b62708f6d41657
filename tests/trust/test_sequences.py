"""jobs.trust on sequences: likeness to a training set in FASTA, by k-mers."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.evaluation.audit import distances_to_nearest
from pipeline.molecules.kinds import SEQUENCE
from pipeline.trust.settings import TrustSettings
from pipeline.trust.table import NEAREST, read_predictions
from tests.made_peptides import families, write_fasta
from tests.made_sets import write_table


def test_likeness_is_that_of_kmers(tmp_path, peptides):
    inside, asked = families(peptides, "AMP"), list(families(peptides, "UniProt").values())
    rng = np.random.default_rng(0)
    label = rng.normal(size=len(asked)).round(3)
    table = write_table(
        tmp_path / "t.csv", seq=asked, prediction=(label + 0.1).tolist(), y=label.tolist()
    )
    found = read_predictions(TrustSettings(
        data_file=str(table), sequence_column="seq", prediction_column="prediction",
        label_column="y", output_dir=str(tmp_path),
        id_file=str(write_fasta(tmp_path / "training.fasta", inside)),
    ))  # fmt: skip
    expected = distances_to_nearest(asked, list(inside.values()), SEQUENCE)
    assert found.scores[NEAREST] == pytest.approx(expected, abs=1e-6)
    assert found.rows == len(asked) and not found.left_out
