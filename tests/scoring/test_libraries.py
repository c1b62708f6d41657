"""Libraries as people have them: structures of their own, files that are none, many bad rows."""

from __future__ import annotations

import pytest
from rdkit import Chem
from rdkit.Chem import rdDistGeom

from pipeline.detectors.heads.energy_head import energies_of
from pipeline.encoders import load_encoder
from pipeline.runtime.errors import InputError
from pipeline.scoring.run import run_scoring
from pipeline.training.checkpoints.checkpoint import load_checkpoint
from tests.molecules.data_files import save
from tests.scoring.made_library import settings, table

pytestmark = pytest.mark.usefixtures("encoder_in_process")


def test_an_sdf_is_scored_by_its_own_structures_if_asked(
    in_this_process, home, whole, small_weights, tmp_path
):
    made, records = [], []
    for seed in (1, 2):
        one = Chem.AddHs(Chem.MolFromSmiles("CC(=O)Nc1ccc(O)cc1"))
        rdDistGeom.EmbedMolecule(one, randomSeed=seed)
        made.append(one)
        records.append(Chem.MolToMolBlock(one) + "$$$$\n")
    path = save(tmp_path / "library.sdf", "".join(records))
    run = settings(home, "given", data_file=str(path), structures="file")
    assert run_scoring(run)["scored"] == 2
    scores = [row["energy"] for row in table(home / "given", "scores")]
    encoder = load_encoder("unimol", weights=str(small_weights), device="cpu", precision="fp32")
    pairs = [([a.GetSymbol() for a in each.GetAtoms()], each.GetConformer().GetPositions())
             for each in made]  # fmt: skip
    head = load_checkpoint(str(home / "checkpoint")).head
    expected = energies_of(head, encoder.encode_conformers(pairs))
    assert scores == pytest.approx(expected.tolist(), abs=1e-3)  # an SDF has four decimals
    assert scores[0] != scores[1]


def test_a_library_whose_first_rows_are_no_molecules_is_told_before_anything_else(home, tmp_path):
    path = save(tmp_path / "d.csv", "smiles,name\n17,CCO\n18,CC\n")
    with pytest.raises(InputError, match="none of 2 rows is a molecule.*'17'.*is a number"):
        run_scoring(settings(home, "none", data_file=str(path)))
    assert not (home / "none/scores").exists()


def test_many_rejected_rows_and_guesses_are_told(in_this_process, home, whole, tmp_path, caplog):
    path = save(tmp_path / "d.csv", "Drug;name\nCCO;a\nnonsense;b\nNO STRUCTURE;c\nC1CC;d\n")
    summary = run_scoring(settings(home, "many", data_file=str(path), id_column="name"))
    assert summary["reading"] == [
        "cells are separated by semicolons", "column 'Drug' is read as --smiles_column smiles"
    ]  # fmt: skip
    assert (summary["scored"], summary["rejected"]) == (1, 3)
    told = [record.getMessage() for record in caplog.records]
    assert any("3 of 4 rows are rejected (75 %), mostly for: SMILES does not" in t for t in told)
    assert any("column 'Drug' is read as" in text for text in told)
