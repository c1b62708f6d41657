"""pLDDT of structure files: in B-factors or ModelCIF's tables, where the file says that it is."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.folding.files import reading
from pipeline.folding.files.reading import protein_chains
from tests.folding.test_structure_files import atoms_changed, only, text_of

TITLES = {
    "TITLE     ALPHAFOLD MONOMER V2.0 PREDICTION FOR A PEPTIDE\n": True,
    "TITLE     ESMFOLD V1 PREDICTION FOR INPUT\n": True,
    "EXPDTA    X-RAY DIFFRACTION\nTITLE     ALPHAFOLD AND ITS PREDICTION OF A PEPTIDE\n": False,
    "TITLE     A STRUCTURE SOLVED BY AN ALPHAFOLD PREDICTION\n": False,
    "": False,
}


@pytest.mark.parametrize(("title", "predicted"), TITLES.items())
@pytest.mark.parametrize("scale", [1, 100])
def test_b_factors_are_plddt_where_the_file_says_so(peptide, title, predicted, scale):
    def b_factor(line):
        return line[:60] + f"{0.1 * int(line[22:26]) * scale:6.2f}" + line[66:]

    body = "".join(
        line + "\n" for line in peptide.splitlines() if line[:4] in ("ATOM", "SEQR", "TER ")
    )
    chain = only(protein_chains(title + atoms_changed(body, b_factor), "a.pdb"))
    expected = 0.1 * np.arange(1, 7) if predicted else np.full(6, np.nan)
    np.testing.assert_allclose(chain.plddt, expected, rtol=1e-5)
    assert (reading.NO_PLDDT in chain.notes) != predicted


def with_metrics(text: str, rows: list[str]) -> str:
    """5I55 with metrics: 2 is pLDDT by residue; rows of chain, place, metric, value, model."""
    columns = ("label_asym_id", "label_seq_id", "metric_id", "metric_value", "model_id")
    names = "".join(f"_ma_qa_metric_local.{name}\n" for name in columns)
    return text + (
        "loop_\n_ma_qa_metric.id\n_ma_qa_metric.mode\n_ma_qa_metric.type\n"
        "1 global pLDDT\n4 local 'pLDDT all-atom'\n2 local pLDDT\n3 local 'pLDDT in [0,1]'\n"
        f"loop_\n{names}" + "".join(f"{row}\n" for row in rows)
    )


CONFIDENCE = [f"A {place} 2 {90 + place / 10:.1f} 1" for place in range(1, 23)]


def test_modelcif_says_plddt_residue_by_residue(structure_folder):
    text = with_metrics(text_of(structure_folder, "5i55.cif.gz"), CONFIDENCE)
    chain = only(protein_chains(text, "AF-P0C7Y0-F1-model_v4.cif"))
    np.testing.assert_allclose(chain.plddt, 0.9 + np.arange(1, 23) / 1000, rtol=1e-6)
    assert reading.NO_PLDDT not in chain.notes


def test_plddt_is_of_the_first_model_and_of_one_metric(structure_folder):
    others = [f"A {place} {metric} {value} {model}" for place in range(1, 23)
              for metric, value, model in ((2, 11, 2), (3, 0.22, 1), (4, 33, 1))]  # fmt: skip
    text = text_of(structure_folder, "5i55.cif.gz")
    for rows in (CONFIDENCE + others, others + CONFIDENCE):
        chain = only(protein_chains(with_metrics(text, rows), "a.cif"))
        np.testing.assert_allclose(chain.plddt, 0.9 + np.arange(1, 23) / 1000, rtol=1e-6)


def test_residues_without_a_value_have_no_plddt(structure_folder):
    rows = ["A 1 2 ? 1", "A . 2 50 1", *CONFIDENCE[2:]]
    text = with_metrics(text_of(structure_folder, "5i55.cif.gz"), rows)
    chain = only(protein_chains(text, "a.cif"))
    assert np.isnan(chain.plddt).tolist() == [True] * 2 + [False] * 20


def test_what_cannot_be_plddt_is_refused(peptide):
    title = "TITLE     ALPHAFOLD MONOMER V2.0 PREDICTION FOR A PEPTIDE\n"
    body = "".join(line + "\n" for line in peptide.splitlines() if line[:4] == "ATOM")
    wrong = atoms_changed(body, lambda line: line[:60] + "120.00" + line[66:])
    chains, others = protein_chains(title + wrong, "a.pdb")
    assert chains == [] and others == {"A": "its pLDDT is not from 0 to 100: from 120 to 120"}
