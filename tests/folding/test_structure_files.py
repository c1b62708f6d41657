"""Structure files as users have them: what else they hold is settled and told, or refused."""

from __future__ import annotations

import gzip

import gemmi
import numpy as np
import pytest

from pipeline.folding.files import reading
from pipeline.folding.files.reading import entry_of, protein_chains, read_bytes
from pipeline.molecules.rejected import kind_of
from pipeline.runtime.errors import RowRejected

CRO = "MEQRITLKDYAMRFGQTKTAKDLGVYQSAINKAIHAGRKIFLTINADGSVYAEEVKDGEVKPFPSNKKTTA"


def text_of(folder, name: str) -> str:
    return read_bytes(str(folder / name))[0]


def atoms_changed(text: str, change) -> str:
    """The file with another line for each of its atoms; None leaves an atom out."""
    lines = [line for line in text.splitlines() if not line.startswith("ANISOU")]
    changed = [change(line) if line[:6] in ("ATOM  ", "HETATM") else line for line in lines]
    return "\n".join(line for line in changed if line is not None) + "\n"


def only(chains_and_others):
    (chain,), others = chains_and_others
    assert others == {}
    return chain


def test_residues_stand_at_their_place_in_seqres(structure_folder):
    chain = only(protein_chains(text_of(structure_folder, "1orc.pdb.gz"), "1orc.pdb"))
    assert chain.sequence == CRO and chain.observed == 64
    first = int(np.flatnonzero(np.isfinite(chain.backbone[:, 1, 0]))[0])
    assert CRO[first:].startswith("QRITL")
    assert chain.notes == {reading.UNOBSERVED, reading.NO_PLDDT}
    assert np.isnan(chain.plddt).all()  # B-factors of a crystal are none


def test_calpha_traces_and_several_chains_are_read(structure_folder):
    chains, others = protein_chains(text_of(structure_folder, "1lzh.pdb.gz"), "1lzh.pdb")
    assert [chain.name for chain in chains] == ["A", "B"] and others == {}
    for chain in chains:
        assert chain.observed == 129 and np.isnan(chain.backbone[:, [0, 2]]).all()


def test_mmcif_with_modified_residues_and_alternate_locations(structure_folder):
    text = text_of(structure_folder, "5i55.cif.gz")
    chain = only(protein_chains(text, "5i55.cif"))
    assert chain.sequence == "MEFVAKLFKFFKDLLGKFLGNN"  # N-formylmethionine first
    assert chain.notes >= {reading.MODIFIED, reading.ALTERNATE}
    best = {}  # by hand: of each residue's Cα the one with the highest occupancy
    for residue in gemmi.make_structure_from_block(gemmi.cif.read_string(text)[0])[0][0]:
        for atom in residue:
            if atom.name == "CA" and atom.occ > best.get(residue.label_seq, (0,))[0]:
                best[residue.label_seq] = (atom.occ, atom.pos.tolist())
    expected = [best[place][1] for place in range(1, 23)]
    np.testing.assert_allclose(chain.backbone[:, 1], expected)


def test_dna_is_no_protein_chain(structure_folder):
    chains, others = protein_chains(text_of(structure_folder, "1pfe.cif.gz"), "1pfe.cif")
    assert others == {"A": "it is no protein chain: Dna"}
    assert [chain.sequence for chain in chains] == ["SAXVSAXV"]  # echinomycin: as MODRES says


def test_the_first_of_several_models_counts(peptide):
    atoms = "".join(line + "\n" for line in peptide.splitlines() if line[:4] == "ATOM")
    moved = atoms_changed(atoms, lambda line: line[:30] + f"{99:8.3f}" + line[38:])
    both = f"MODEL        1\n{atoms}ENDMDL\nMODEL        2\n{moved}ENDMDL\nEND\n"
    chain = only(protein_chains(both, "a.pdb"))
    np.testing.assert_allclose(chain.backbone, only(protein_chains(peptide, "a.pdb")).backbone)
    assert chain.notes == {reading.SEVERAL_MODELS, reading.NO_SEQRES, reading.NO_PLDDT}


def test_several_polymers_of_one_chain_are_all_read(peptide):
    structure = gemmi.read_pdb_string(peptide)
    structure[0].add_chain(structure[0][0].clone())
    structure[0][1].name = "B"
    structure.setup_entities()
    structure.assign_label_seq_id()
    for residue in structure[0][1].get_polymer():
        residue.subchain = "C"
    structure.get_entity_of(structure[0][0].get_polymer()).subchains = ["Axp", "C"]
    block = structure.make_mmcif_document().sole_block()
    for row in block.find("_atom_site.", ["auth_asym_id", "auth_seq_id"]):
        if row[0] == "B":
            row[0], row[1] = "A", str(int(row[1]) + 200)
    chains, others = protein_chains(block.as_string(), "a.cif")
    assert [chain.name for chain in chains] == ["A/Axp", "A/C"] and others == {}
    assert {chain.sequence for chain in chains} == {"LVHSSN"}
    np.testing.assert_array_equal(chains[0].backbone, chains[1].backbone)


@pytest.mark.parametrize("other", [("VAL", "GLY"), ("HIS", "TRP")])
def test_reasons_of_one_kind_are_counted_as_one(peptide, other):
    wrong = "\n".join(
        line.replace(*other) if line[:4] == "ATOM" else line for line in peptide.splitlines()
    )
    _, others = protein_chains(wrong, "a.pdb")
    assert kind_of(others["A"]) == "a residue is another in its chain's sequence (SEQRES)"
    assert other[1] in others["A"] and other[0] in others["A"]


@pytest.mark.parametrize(
    ("text", "name", "reason"),
    [
        ("data_x\n_cell.length_a 1\n", "a.cif", "the file has no coordinates"),
        ("data_x\nloop_\n_a\n_b\n1\n", "a.cif", "the file is no mmCIF file: "),
        ("", "a.cif", "the file is no mmCIF file: "),
        ("nothing of a structure\n", "a.pdb", "the file has no coordinates"),
    ],
)
def test_what_is_no_structure_is_refused(text, name, reason):
    with pytest.raises(RowRejected, match=reason):
        protein_chains(text, name)


def test_a_damaged_gzip_is_refused(structure_folder, tmp_path):
    whole = (structure_folder / "1orc.pdb.gz").read_bytes()
    (tmp_path / "cut.pdb.gz").write_bytes(whole[:4000])
    with pytest.raises(RowRejected, match="cannot be read"):
        read_bytes(str(tmp_path / "cut.pdb.gz"))
    (tmp_path / "plain.pdb").write_bytes(gzip.decompress(whole))
    assert read_bytes(str(tmp_path / "plain.pdb"))[0] == text_of(structure_folder, "1orc.pdb.gz")


@pytest.mark.parametrize(
    ("path", "entry"),
    [
        ("AF-P12345-F1-model_v4.cif.gz", "P12345"),
        ("AF-P12345-2-F1-model_v6.pdb", "P12345-2"),
        ("AF-P12345-F2-model_v4.cif", "AF-P12345-F2-model_v4"),
        ("or/pdb1orc.ent.gz", "1orc"),
        ("1ABC_A.pdb", "1ABC_A"),
        ("my.protein.v2.cif", "my.protein.v2"),
    ],
)
def test_files_are_of_an_entry_by_their_name(path, entry):
    assert entry_of(path) == entry
