"""Residues of structure files: their place, letter and location; caps, gaps, missing atoms."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.folding.features import COLUMNS, backbone_features
from pipeline.folding.files import reading
from pipeline.folding.files.reading import protein_chains
from tests.folding.test_structure_files import atoms_changed, only


def test_the_highest_occupancy_counts_for_all_three_atoms(peptide):
    def double(line):
        if line[22:26] != "   3":
            return line
        other = line[:16] + "B" + line[17:30] + f"{float(line[30:38]) + 9:8.3f}" + line[38:]
        shares = {"N": (0.9, 0.1), "CA": (0.3, 0.7), "C": (0.3, 0.7)}
        a, b = shares.get(line[12:16].strip(), (0.5, 0.5))
        return "\n".join(
            each[:16] + label + each[17:54] + f"{occupancy:6.2f}" + each[60:]
            for each, label, occupancy in ((line, "A", a), (other, "B", b))
        )

    plain = only(protein_chains(peptide, "a.pdb"))
    chain = only(protein_chains(atoms_changed(peptide, double), "a.pdb"))
    # A's three atoms have 1.5 together and B's 1.5: the first counts; a little more, and B does.
    np.testing.assert_allclose(chain.backbone, plain.backbone)
    more = atoms_changed(peptide, double).replace("  0.70", "  0.72")
    moved = only(protein_chains(more, "a.pdb")).backbone - plain.backbone
    np.testing.assert_allclose(moved[2], [[9, 0, 0]] * 3, atol=1e-5)
    assert not moved[[0, 1, 3, 4, 5]].any()
    assert reading.ALTERNATE in chain.notes and reading.ALTERNATE not in plain.notes


@pytest.mark.parametrize(
    ("name", "header", "letter"),
    [
        ("MSE", "", "M"),
        ("MSE", "MODRES 5E5Z MSE A    2  MET  SELENOMETHIONINE\n", "M"),
        ("ZZZ", "MODRES 5E5Z ZZZ A    2  VAL  SOMETHING\n", "V"),
        ("ZZZ", "", "X"),
        ("SEC", "", "U"),
    ],
)
def test_modified_residues_count_as_their_parents(peptide, name, header, letter):
    renamed = header + peptide.replace("VAL", name)
    chain = only(protein_chains(renamed, "a.pdb"))
    assert chain.sequence == f"L{letter}HSSN"
    assert (reading.MODIFIED in chain.notes) == (name != "SEC")


SEQRES = "SEQRES   1 A    6  LEU VAL HIS SER SER ASN"
CAPPED = "SEQRES   1 A    8  ACE LEU VAL HIS SER SER ASN NH2"


def cap(number: int, name: str, atom: str) -> str:
    return (
        f"HETATM 9{number:03d}  {atom:<3} {name} A{number:4d}    "
        "  20.000  20.000  20.000  1.00  0.00           " + atom[0] + "\n"
    )


@pytest.mark.parametrize("observed", [True, False])
@pytest.mark.parametrize("header", [CAPPED, ""], ids=["SEQRES", "none"])
def test_caps_of_the_ends_are_no_residues(peptide, observed, header):
    atoms = "".join(line + "\n" for line in peptide.splitlines() if line[:4] == "ATOM")
    if observed:
        atoms = cap(0, "ACE", "C") + atoms + cap(7, "NH2", "N")
    chain = only(protein_chains(f"{header}\n{atoms}TER\n", "a.pdb"))
    plain = only(protein_chains(peptide, "a.pdb"))
    assert chain.sequence == "LVHSSN"
    np.testing.assert_array_equal(chain.backbone, plain.backbone)
    assert (reading.CAPPED in chain.notes) == (observed or bool(header))
    assert reading.UNOBSERVED not in chain.notes


def test_a_modified_end_is_no_cap(peptide):
    chain = only(protein_chains(peptide.replace("LEU", "PCA"), "a.pdb"))
    assert chain.sequence == "EVHSSN" and reading.CAPPED not in chain.notes


def test_a_gap_inside_the_sequence_is_missing_residues(peptide):
    def gapped(line):
        return None if line[17:20] == "HIS" else line

    chain = only(protein_chains(atoms_changed(peptide, gapped), "a.pdb"))
    plain = only(protein_chains(peptide, "a.pdb"))
    assert chain.sequence == "LVHSSN" and chain.observed == 5
    assert np.isnan(chain.backbone[2]).all() and reading.UNOBSERVED in chain.notes
    there = [0, 1, 3, 4, 5]
    np.testing.assert_array_equal(chain.backbone[there], plain.backbone[there])


@pytest.mark.parametrize("header", [SEQRES, ""], ids=["SEQRES", "none"])
def test_insertion_codes_are_residues_of_their_own(peptide, header):
    numbers = {1: "   1 ", 2: "   2 ", 3: "   2A", 4: "   2B", 5: "   3 ", 6: "   4 "}
    atoms = "".join(line + "\n" for line in peptide.splitlines() if line[:4] == "ATOM")
    renumbered = atoms_changed(
        atoms, lambda line: line[:22] + numbers[int(line[22:26])] + line[27:]
    )
    chain = only(protein_chains(f"{header}\n{renumbered}", "a.pdb"))
    assert chain.sequence == "LVHSSN"
    expected = only(protein_chains(peptide, "a.pdb")).backbone
    np.testing.assert_array_equal(chain.backbone, expected)


def test_atoms_that_are_missing_are_missing_alone(peptide):
    def without(line):
        return None if line[22:26] == "   3" and line[12:16].strip() in ("N", "C") else line

    chain = only(protein_chains(atoms_changed(peptide, without), "a.pdb"))
    plain = only(protein_chains(peptide, "a.pdb")).backbone
    assert chain.observed == 6 and np.isnan(chain.backbone[2, [0, 2]]).all()
    np.testing.assert_array_equal(chain.backbone[2, 1], plain[2, 1])
    features = backbone_features(chain.backbone)
    phi_psi = [COLUMNS.index("cos_phi"), COLUMNS.index("cos_psi")]
    assert np.isnan(features[:, phi_psi]).tolist() == [
        [True, False], [False, True], [True, True], [True, False], [False, False], [False, True],
    ]  # fmt: skip


def test_of_a_point_mutation_the_letter_is_that_of_the_coordinates(peptide):
    def mutant(line):
        if line[22:26] != "   2":
            return line
        other = line[:16] + "BALA" + line[20:30] + f"{float(line[30:38]) + 9:8.3f}" + line[38:]
        return "\n".join(
            (line[:16] + "A" + line[17:54] + "  0.30" + line[60:],
             other[:54] + "  0.70" + other[60:])
        )  # fmt: skip

    atoms = "".join(line + "\n" for line in peptide.splitlines() if line[:4] == "ATOM")
    chain = only(protein_chains(atoms_changed(atoms, mutant), "a.pdb"))
    moved = chain.backbone - only(protein_chains(peptide, "a.pdb")).backbone
    assert chain.sequence == "LAHSSN"
    np.testing.assert_allclose(moved[1], [[9, 0, 0]] * 3, atol=1e-5)
