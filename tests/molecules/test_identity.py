"""What is the same molecule: spellings, atom maps, extensions, fragments; what is rejected."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem, rdBase

from pipeline.molecules.identity import canonicalize, largest_fragment, molecule_key
from pipeline.molecules.roles import check_overlap
from pipeline.runtime.errors import InputError, RowRejected
from tests.conftest import DATA
from tests.molecules.data_files import read, save

# RDKit's canonical SMILES of these change when they are read: once, twice, or forth and back.
UNSTABLE = [
    "O=C=NC1=CC2C3=C(C=C1)C2=C(N=C=O)C=C3",
    "COC(=O)CC[C@@H](C)[C@H]1CC[C@H]2[C@H]3[C@H](CC[C@@]21C)[C@@]1(C)CC[C@]2(C[C@H]1C[C@H]3"
    "OC(C)=O)OOC1(CC[C@@H](C)CC1)OO2",
    r"[H]/N=C(C=C)\C(/N=C\[O-])=N\[H]",
    "O=C(C[C@]1(c2ccc(-c3ccc(F)cc3)cc2)C2CC3CC1CC(C2)[C@@H]3O)N1CC(O)C1",
]
WRITTEN = [*(DATA / "hiv.smi").read_text().split()[:60], *(DATA / "moses.smi").read_text().split()]
TEXTS = ["CCO.Cl", "C[C@H](N)C(=O)O", r"F/C=C\F", "[13CH4]", "[O-]c1ccccc1.[Na+]", *UNSTABLE]


@pytest.mark.parametrize("smiles", [*UNSTABLE, *WRITTEN[:20]])
def test_the_canonical_form_is_its_own(smiles):
    canonical = canonicalize(smiles)
    assert canonicalize(canonical) == canonical
    found = {canonicalize(Chem.CanonSmiles(smiles)), canonicalize(Chem.CanonSmiles(canonical))}
    assert found == {canonical}


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([*WRITTEN, *TEXTS]), st.randoms(use_true_random=False))
def test_spellings_and_atom_maps_do_not_change_the_key(smiles, random):
    rdBase.SeedRandomNumberGenerator(random.randrange(2**31))
    molecule = Chem.MolFromSmiles(smiles)
    for atom in molecule.GetAtoms():
        atom.SetAtomMapNum(random.choice([0, 0, 1, 7, atom.GetIdx() + 1]))
    mapped = Chem.MolToSmiles(molecule, doRandom=True, canonical=False)
    assert molecule_key(canonicalize(mapped)) == molecule_key(canonicalize(smiles))


@pytest.mark.parametrize(
    ("mapped", "plain"),
    [
        ("[CH3:1][C@H:2]([CH3:3])[OH:4]", "CC(C)O"),  # no centre: only the maps tell CH3 from CH3
        ("[CH3:1]/[C:2]([CH3:3])=[CH:4]/[OH:5]", "CC(C)=CO"),
        ("[H:1][O:2][H:3]", "O"),
        ("[*:1]CC[*:2]", "*CC*"),
        ("CCO |atomProp:0.molAtomMapNumber.3|", "CCO"),
    ],
)
def test_atom_maps_make_no_stereo_and_no_other_atoms(mapped, plain):
    assert canonicalize(mapped) == canonicalize(plain) == plain


def test_a_molecule_with_atom_maps_in_another_split_is_found(tmp_path):
    splits = {"train": [{"smiles": "CCO"}], "iid_test": [{"smiles": "[CH3:1][CH2:2][OH:3]"}]}
    source = read(save(tmp_path / "d.json", json.dumps({"split": splits})))
    with pytest.raises(InputError, match="1 molecules are in more than one split: CCO"):
        check_overlap(source.molecules, allow=False, source="d.json")


@pytest.mark.parametrize(
    "text", [" CCO\n", "CCO\r", "CCO\u00a0", "\ufeffCCO", "CCO\u200b ", "\tCCO"]
)
def test_blanks_around_a_smiles_do_not_count(text):
    assert canonicalize(text) == "CCO"


REJECTED = {
    "NO STRUCTURE": "text after a blank: 'STRUCTURE'",
    "CO (mixture)": r"text after a blank: '\(mixture\)'",
    "CCO . CCN": "text after a blank: '. CCN'",
    "CCO\nCCN": "text after a blank: 'CCN'",
    "CCO\u00a0CCN": "text after a blank: 'CCN'",
    "CCO |": "text after a blank",
    f"CCO {'x' * 60}": f"text after a blank: '{'x' * 40}…'",
    "CCCCO…": r"the character '…' \(U\+2026, HORIZONTAL ELLIPSIS\)",
    "Cc1ccccc1†": "DAGGER",
    "C−C": "MINUS SIGN",
    "CC\x00": r"'\\x00' \(U\+0000, a control character\)",
    "CC\ufffdO": "no UTF-8 text",
    "CC |$\ufffd$|": "no UTF-8 text",
    "CCO |nonsense|": r"CXSMILES extension does not parse: '\|nonsense\|'",
    "CCO |^1:0| ethyl": "text after the CXSMILES extension: 'ethyl'",
    "C1CC |^1:0|": "SMILES does not parse",
    "|^1:0|": "SMILES does not parse",
    "": "empty",
    " \u00a0\ufeff": "empty",
}


@pytest.mark.parametrize("text", REJECTED)
def test_what_is_more_than_a_smiles_is_rejected_with_the_reason(text):
    with pytest.raises(RowRejected, match=REJECTED[text]):
        canonicalize(text)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("CC |^1:0|", "[CH2]C"),
        ("C[C@H](N)c1ccccc1 |o1:1|", "C[C@H](N)c1ccccc1"),
        ("C[C@@H]1CC[C@@H](O1)C(=O)N |&1:1,4,r|", "C[C@@H]1CC[C@H](C(N)=O)O1"),
        ("CC* |$;;R 1$|\n", "*CC"),
    ],
)
def test_an_extension_counts_as_far_as_a_plain_smiles_can_say_it(text, plain):
    assert canonicalize(text) == canonicalize(plain) == plain


@pytest.mark.parametrize(
    ("smiles", "largest"),
    [
        ("CCN.Cl", "CCN"),
        ("Cl.NCC", "CCN"),
        ("[Na+].[O-]C(=O)C", "CC(=O)[O-]"),
        ("CCO.O.O", "CCO"),
        ("CCO", "CCO"),
        ("OCC.CCO", "CCO"),
    ],
)
def test_the_largest_fragment(smiles, largest):
    assert largest_fragment(canonicalize(smiles)) == largest
