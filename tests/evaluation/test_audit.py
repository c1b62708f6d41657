"""The shortcut audit: descriptors, the nearest molecule, what is chosen where, the warning."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from rdkit import Chem, DataStructs
from rdkit.Chem import AllChem, Crippen, Descriptors, Lipinski, rdMolDescriptors
from rdkit.Chem.Scaffolds import MurckoScaffold
from sklearn.metrics import roc_auc_score

from pipeline.evaluation import audit as module
from pipeline.evaluation.audit import (
    WITHOUT_OOD,
    audit,
    audit_lines,
    distances_to_nearest,
    warning_of,
)
from pipeline.evaluation.metrics import bootstrap_intervals, compare_aurocs
from pipeline.molecules.features import neighbours
from pipeline.molecules.features.descriptors import DESCRIPTORS, descriptor_values

ODD = ["CC(=O)[O-].[Na+]", "C[N+](C)(C)CC(=O)O", "[H][H]", "O", "C1CC2CCC1CC2"]
ID_TRAIN = ["C" * n for n in range(2, 12)]
RINGS = ["C" * n + "c1ccccc1" for n in range(1, 11)]


def table(**smiles_of_role):
    rows = [(s, role) for role, molecules in smiles_of_role.items() for s in molecules]
    return pa.table({"smiles": [s for s, _ in rows], "role": [role for _, role in rows]})


def audited(training, id_test, ood_test, energies=None, **changes):
    is_ood = np.repeat([False, True], [len(id_test), len(ood_test)])
    energies = is_ood.astype(np.float32) if energies is None else energies
    usual = {"bootstrap_samples": 100, "seed": 0}
    return audit(training, [*id_test, *ood_test], is_ood, energies, **{**usual, **changes})


def test_the_descriptors_are_rdkits(hiv_smiles):
    smiles = [*hiv_smiles[:60], *ODD]
    values = dict(zip(DESCRIPTORS, descriptor_values(smiles).T))
    molecules = [Chem.MolFromSmiles(one) for one in smiles]
    plain = {
        "heavy atoms": lambda mol: sum(atom.GetAtomicNum() > 1 for atom in mol.GetAtoms()),
        "molecular weight": lambda mol: Descriptors.MolWt(mol),
        "rings": lambda mol: mol.GetRingInfo().NumRings(),
        "aromatic rings": lambda mol: Lipinski.NumAromaticRings(mol),
        "scaffold atoms": lambda mol: Chem.MolFromSmiles(
            MurckoScaffold.MurckoScaffoldSmiles(mol=mol)
        ).GetNumAtoms(),
        "rotatable bonds": lambda mol: Lipinski.NumRotatableBonds(mol),
        "H-bond donors": lambda mol: Lipinski.NumHDonors(mol),
        "H-bond acceptors": lambda mol: Lipinski.NumHAcceptors(mol),
        "TPSA": lambda mol: rdMolDescriptors.CalcTPSA(mol),
        "logP": lambda mol: Crippen.MolLogP(mol),
        "fraction of sp3 carbons": lambda mol: Lipinski.FractionCSP3(mol),
        "heteroatoms": lambda mol: sum(a.GetAtomicNum() not in (1, 6) for a in mol.GetAtoms()),
        "formal charge": lambda mol: sum(atom.GetFormalCharge() for atom in mol.GetAtoms()),
    }
    assert values.keys() == plain.keys() and len(plain) == 13
    for name, describe in plain.items():
        np.testing.assert_allclose(
            values[name], [describe(mol) for mol in molecules], rtol=1e-12, err_msg=name
        )


def test_the_nearest_is_that_of_a_double_loop(hiv_smiles, monkeypatch):
    monkeypatch.setattr(neighbours, "QUERIES", 7)
    tests, references = [*hiv_smiles[:30], *ODD], hiv_smiles[25:80]

    def fingerprint(smiles):
        molecule = Chem.MolFromSmiles(smiles)
        return AllChem.GetMorganFingerprintAsBitVect(molecule, 2, nBits=2048)

    known = [fingerprint(smiles) for smiles in references]
    expected = [
        1 - max(DataStructs.TanimotoSimilarity(fingerprint(smiles), one) for one in known)
        for smiles in tests
    ]
    found = distances_to_nearest(tests, references)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert (found[25:30] == 0).all() and found[0] > 0


@pytest.mark.parametrize("digits", [0, 3])  # with many ties, and with hardly any
def test_aurocs_are_scikit_learns_and_the_intervals_those_of_the_model(digits):
    rng = np.random.default_rng(1)
    is_ood = rng.random(400) < 0.4
    scores = [np.round(rng.normal(shift * is_ood), digits) for shift in (1.0, 0.5)]
    model, rival = scores
    made = compare_aurocs(is_ood, model, {"it": rival, "self": model}, samples=200, seed=2)
    assert made["it"]["auroc"] == pytest.approx(roc_auc_score(is_ood, rival), abs=1e-12)
    lead = roc_auc_score(is_ood, model) - roc_auc_score(is_ood, rival)
    assert made["it"]["lead"] == pytest.approx(lead, abs=1e-12)
    low, high = made["it"]["lead_ci95"]
    assert low < lead < high
    expected = bootstrap_intervals(is_ood.astype(int), rival, samples=200, seed=2)["auroc"]
    assert made["it"]["auroc_ci95"] == pytest.approx(expected, abs=0.015)
    assert made["self"]["lead"] == 0 and made["self"]["lead_ci95"] == [0, 0]  # paired


def test_the_descriptor_and_its_direction_are_chosen_without_the_test_set():
    # Training says that rings are OOD. Of the test molecules, the ID ones have the rings.
    training = table(id_train=ID_TRAIN, id_val=["CCC"], ood_train=RINGS[:8], ood_val=RINGS[8:])
    made = audited(training, id_test=RINGS, ood_test=ID_TRAIN)
    chosen = made["descriptor"]
    assert chosen["name"] == "rings" and chosen["ood_is"] == "higher"
    assert (
        chosen["training_auroc"] == 1
        and chosen["auroc"] == 0 == made["descriptors"]["rings"]["auroc"]
    )
    assert made["chosen_on"] == {"id": 11, "ood": 10}
    # With the roles exchanged the direction turns, though the test molecules are the same.
    other = table(id_train=RINGS, id_val=[], ood_train=ID_TRAIN, ood_val=[])
    turned = audited(other, id_test=RINGS, ood_test=ID_TRAIN)["descriptor"]
    assert (turned["name"], turned["ood_is"], turned["auroc"]) == ("rings", "lower", 1)


def test_without_ood_molecules_in_training_the_audit_says_why_there_is_none():
    made = audited(table(id_train=ID_TRAIN, id_val=["CCC"]), id_test=RINGS, ood_test=ID_TRAIN)
    assert made == {"not_made": WITHOUT_OOD}
    assert audit_lines(made) == [f"audit       not made: {WITHOUT_OOD}"]


def test_the_table_is_scikit_learns_in_the_direction_of_training(hiv_smiles, moses_smiles):
    training = table(id_train=moses_smiles[:30], ood_train=hiv_smiles[:30])
    tests = [*moses_smiles[30:50], *hiv_smiles[30:60]]
    made = audited(training, tests[:20], tests[20:])
    is_ood = np.arange(50) >= 20
    fit = descriptor_values([*moses_smiles[:30], *hiv_smiles[:30]])
    for i, (name, found) in enumerate(made["descriptors"].items()):
        of_training = roc_auc_score(np.arange(60) >= 30, fit[:, i])
        sign = 1 if of_training >= 0.5 else -1
        assert found["ood_is"] == ("higher" if sign == 1 else "lower")
        assert found["training_auroc"] == pytest.approx(max(of_training, 1 - of_training))
        values = sign * descriptor_values(tests)[:, i]
        assert found["auroc"] == pytest.approx(roc_auc_score(is_ood, values)), name
    best = max(made["descriptors"], key=lambda name: made["descriptors"][name]["training_auroc"])
    assert made["descriptor"]["name"] == best
    nearest = distances_to_nearest(tests, moses_smiles[:30])  # ID training molecules alone
    assert made["tanimoto"]["auroc"] == pytest.approx(roc_auc_score(is_ood, nearest))
    assert made["tanimoto"]["training_molecules"] == 30


@pytest.mark.parametrize(
    ("model", "descriptor", "tanimoto", "named"),
    [
        (0.955, 1.0, 0.9, "rings (lower is OOD) alone has AUROC 1.000"),
        (0.90, 0.6, 0.89, "Tanimoto to the nearest ID training molecule alone has AUROC 0.890"),
        (0.82, 0.80, 0.80, None),  # 0.82 − 0.80 is 0.0199999… in binary
        (0.8199, 0.80, 0.5, "the model 0.820: this split says little about the model"),
        (0.97, 0.9, 0.95, None),
    ],
)
def test_a_lead_of_less_than_two_hundredths_is_warned_of(model, descriptor, tanimoto, named):
    made = {
        "descriptor": {"name": "rings", "ood_is": "lower", "auroc": descriptor},
        "tanimoto": {"auroc": tanimoto},
    }
    warning = warning_of(made, model)
    assert warning is None if named is None else named in warning


def test_what_is_written_and_said():
    training = table(id_train=ID_TRAIN, ood_train=RINGS)
    made = audited(training, ["C" * 13, "C" * 14], ["CCCCCc1ccccc1C", "CCCCOc1ccccc1"])
    assert json.loads(json.dumps(made)) == made
    assert made.keys() == {
        "descriptor", "tanimoto", "descriptors", "chosen_on", "warning",
    }  # fmt: skip
    intervals = {"auroc", "auroc_ci95", "lead", "lead_ci95"}
    assert made["descriptor"].keys() == {"name", "ood_is", "training_auroc"} | intervals
    assert made["tanimoto"].keys() == {"training_molecules", "fingerprint"} | intervals
    assert made["descriptors"].keys() == DESCRIPTORS.keys()
    said = audit_lines(made)
    assert said[1] == (
        "            1.000 [1.000, 1.000] rings (higher is OOD); "
        "the model's lead +0.000 [+0.000, +0.000]"
    )
    assert "Tanimoto" in said[2] and said[3] == f"warning     {made['warning']}"
    assert len(audit_lines({**made, "warning": None})) == 3


def test_a_checkpoint_without_smiles_says_that_no_audit_can_be_made():
    made = audited(pa.table({"key": ["0"], "role": ["id_train"]}), ["CC"], ["CCC"])
    assert made.keys() == {"not_made"}
    assert "earlier version" in made["not_made"] and "train again" in made["not_made"]
    assert audit_lines(made) == [f"audit       not made: {made['not_made']}"]


def test_of_many_training_molecules_some_are_taken(monkeypatch):
    monkeypatch.setattr(module, "CHOSEN_ON", 4)
    monkeypatch.setattr(module, "SEARCHED", 3)
    training = table(id_train=ID_TRAIN, ood_train=RINGS)
    made = [audited(training, ["C" * 13] * 2, ["Cc1ccccc1C"] * 2) for _ in range(2)]
    assert made[0] == made[1]
    assert made[0]["chosen_on"] == {"id": 4, "ood": 4}
    assert made[0]["tanimoto"]["training_molecules"] == 3
