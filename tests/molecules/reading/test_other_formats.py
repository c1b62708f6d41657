"""SMILES files, JSON and SDF; encodings, compression and line ends of all."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma

import numpy as np
import pyarrow as pa
import pytest
from rdkit import Chem
from rdkit.Chem import rdDistGeom

from pipeline.molecules.reading.content import STRUCTURE_COLUMNS
from pipeline.molecules.reading.sdf import open_sdf
from pipeline.molecules.reading.smiles_lines import fields
from pipeline.runtime.errors import InputError
from tests.molecules.data_files import parquet, rows, save

# --- SMILES files -----------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_of_smiles_files(tmp_path, end):
    path = save(tmp_path / "d.smi", end.join(["CCO", "CC", "C"]) + end)
    assert rows(path)["smiles"].to_pylist() == ["CCO", "CC", "C"]


def test_mixed_line_ends_and_empty_lines_are_counted(tmp_path):
    found = rows(save(tmp_path / "d.smi", "CCO\rCC\r\nC\n\nCN a"))
    assert found["smiles"].to_pylist() == ["CCO", "CC", "C", "", "CN"]
    assert found["id"].to_pylist() == ["d:0#", "d:1#", "d:2#", "d:3#", "a"]


@pytest.mark.parametrize("header", ["smiles zinc_id", "SMILES\tzinc_id", "zinc_id smiles", None])
@pytest.mark.parametrize("name", ["d.smi", "d.SMI", "d.cxsmiles"])
def test_the_other_field_is_the_id_with_a_header_or_without(tmp_path, header, name):
    made = [("CCO", "Z1"), ("c1ccccc1", "Z2")]
    turn = -1 if header and header.startswith("zinc") else 1
    gap = "\t" if header and "\t" in header else " "
    lines = ([header] if header else []) + [gap.join(row[::turn]) for row in made]
    path = save(tmp_path / name, "\n".join(lines))
    found = rows(path)
    assert found["smiles"].to_pylist() == ["CCO", "c1ccccc1"]
    assert found["id"].to_pylist() == ["Z1", "Z2"]
    if header:
        assert rows(path, id_column="zinc_id").equals(found)
    else:
        with pytest.raises(InputError, match="without a header has no column 'zinc_id'"):
            rows(path, id_column="zinc_id")


def test_names_that_repeat_are_made_different_and_told(tmp_path, caplog):
    found = rows(save(tmp_path / "d.smi", "C a\nCC a\nCCC b\nCO a#2\nCN a\n"))
    assert found["id"].to_pylist() == ["a", "a#3", "b", "a#2", "a#4"]
    assert "1 names of molecules repeat" in caplog.text


@pytest.mark.parametrize(
    "line, found",
    [
        ("CC |^1:0| x", ["CC |^1:0|", "x"]),
        ("CC\t|^1:0|\tx", ["CC |^1:0|", "x"]),
        ("CC |^1:0|\tx", ["CC |^1:0|", "x"]),
        ("CC |$a;b c$,r| x", ["CC |$a;b c$,r|", "x"]),
        ("CC |x", ["CC", "|x"]),
        ("CC", ["CC"]),
        (" CC   acetic acid ", ["CC", "acetic", "acid"]),
        ("", [""]),
    ],
)
def test_an_extension_belongs_to_its_smiles(line, found):
    assert fields(line) == found


# --- JSON ---------------------------------------------------------------------------------------


def test_labels_of_json_are_numbers_in_any_spelling(tmp_path):
    items = [{"smiles": "C", "cls_label": value} for value in ("1", True, 0, 2.5, None, "NaN")]
    path = save(tmp_path / "d.json", json.dumps({"split": {"train": items}}))
    assert rows(path)["label"].to_pylist() == [1, 1, 0, 2.5, None, None]
    items.append({"smiles": "C", "cls_label": "active"})
    path = save(tmp_path / "d.json", json.dumps({"split": {"train": items}}))
    with pytest.raises(InputError, match="1 or more labels are no numbers, such as 'active'"):
        rows(path)


def test_flags_name_the_keys_of_drugoods_items(tmp_path):
    item = {"smi": "C", "reg_label": 1.5, "cls_label": 1, "cid": "x", "assay": 3}
    path = save(tmp_path / "d.json", json.dumps({"split": {"val": [item]}}))
    found = rows(path, smiles_column="smi", label_column="reg_label", id_column="cid",
                 domain_column="assay")  # fmt: skip
    assert found.select(["id", "smiles", "split", "label", "domain"]).to_pylist() == [
        {"id": "x", "smiles": "C", "split": "iid_val", "label": 1.5, "domain": "3"}
    ]
    with pytest.raises(InputError, match="--split_column cannot apply"):
        rows(path, split_column="assay")


def test_json_lines_and_lists_of_objects_read_alike(tmp_path):
    items = [{"smiles": "C", "y": 1}, {"smiles": None}, {"smiles": "CC", "y": False, "more": [1]}]
    lines = save(tmp_path / "a.jsonl", "\n\n".join(map(json.dumps, items)) + "\n")
    listed = save(tmp_path / "a.json", json.dumps(items))
    assert rows(lines, label_column="y").equals(rows(listed, label_column="y"))
    assert rows(lines, label_column="y")["label"].to_pylist() == [1, None, 0]


def test_lines_that_are_no_objects_are_refused(tmp_path):
    found = rows(save(tmp_path / "d.jsonl", '{"smiles": "C"}\n{"smiles": \n[1]\n{"smiles": "CC"}'))
    assert found["smiles"].to_pylist() == ["C", '{"smiles":', "[1]", "CC"]
    assert [bool(reason) for reason in found["reason"].to_pylist()] == [False, True, True, False]
    assert found["id"].to_pylist() == [f"d:{i}" for i in range(4)]


def test_all_keys_of_a_list_are_columns_and_of_lines_those_of_the_first(tmp_path):
    items = [{"smiles": "C"}] * 250 + [{"smiles": "CC", "y": 1}]
    listed = save(tmp_path / "a.json", json.dumps(items))
    assert rows(listed, label_column="y")["label"].to_pylist()[-1] == 1
    lines = save(tmp_path / "a.jsonl", "\n".join(map(json.dumps, items)))
    with pytest.raises(InputError, match="no column 'y' in its first 200 rows"):
        rows(lines, label_column="y")


# --- SDF ----------------------------------------------------------------------------------------


def sdf(smiles: list[str], *, three_d: bool = True) -> str:
    text = []
    for number, one in enumerate(smiles):
        molecule = Chem.AddHs(Chem.MolFromSmiles(one))
        if three_d:
            rdDistGeom.EmbedMolecule(molecule, randomSeed=1)
        molecule.SetProp("_Name", f"name {number}")
        molecule.SetProp("y", str(number))
        text.append(Chem.MolToMolBlock(molecule) + f">  <y>  ({number})\n{number}\n\n$$$$\n")
    return "".join(text)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("name", ["d.sdf", "d.sdf.gz", "d.SD"])
def test_an_sdf_has_titles_properties_and_structures(tmp_path, name, end):
    smiles = ["C[C@H](N)C(=O)O", "C/C=C/C", "c1ccccc1"]
    path = save(tmp_path / name, sdf(smiles).replace("\n", end).encode())
    found = rows(path, label_column="y")
    assert found["id"].to_pylist() == ["name 0", "name 1", "name 2"]
    assert found["label"].to_pylist() == [0, 1, 2]
    assert found["smiles"].to_pylist() == [Chem.CanonSmiles(one) for one in smiles]


def test_a_record_that_cannot_be_read_costs_itself_alone(tmp_path):
    parts = sdf(["C", "CC", "CCC"]).split("$$$$\n")
    broken = parts[1].replace("V2000", "V2000 ", 1).replace(" C ", " Qq ", 1)
    text = "$$$$\n".join([parts[0], broken, "title\nno structure\n", parts[2], ""])
    found = rows(save(tmp_path / "d.sdf", text))
    assert found["id"].to_pylist() == ["name 0", "d:1#", "d:2#", "name 2"]
    assert [bool(reason) for reason in found["reason"].to_pylist()] == [False, True, True, False]
    assert found["smiles"].to_pylist()[1:3] == ["name 1", "title"]


def test_an_sdf_reads_as_rdkits_supplier_does(tmp_path, moses_smiles):
    path = save(tmp_path / "d.sdf", sdf(moses_smiles[:20]))
    reference = [Chem.MolToSmiles(each) for each in Chem.SDMolSupplier(str(path))]
    assert rows(path)["smiles"].to_pylist() == reference
    whole = list(Chem.SDMolSupplier(str(path), removeHs=False))
    [piece] = open_sdf(str(path)).pieces(STRUCTURE_COLUMNS)
    atoms, coords, kinds, left_out = piece.columns.values()
    assert set(kinds) == {"3d"} and set(left_out) == {0}
    for row, molecule in enumerate(whole):
        places = molecule.GetConformer().GetPositions().astype(np.float32)
        assert np.array_equal(coords[row], places.ravel())
        numbers = [atom.GetAtomicNum() for atom in molecule.GetAtoms()]
        assert atoms[row].tolist() == numbers


def test_what_is_no_sdf_is_an_error(tmp_path):
    with pytest.raises(InputError, match="not an SDF"):
        rows(save(tmp_path / "d.sdf", "x\n"))


# --- bytes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("name", ["d.csv", "d.smi", "d.jsonl"])
def test_encodings_with_a_byte_order_mark(tmp_path, encoding, name):
    text = {
        "d.csv": "smiles,id\r\nCCO,é\r\nCC,水\r\n",
        "d.smi": "CCO é\r\nCC 水\r\n",
        "d.jsonl": '{"smiles": "CCO", "id": "é"}\n{"smiles": "CC", "id": "水"}\n',
    }[name]
    path = save(tmp_path / name, text.encode(encoding))
    found = rows(path, **({} if name == "d.smi" else {"id_column": "id"}))
    assert found["smiles"].to_pylist() == ["CCO", "CC"] and found["id"].to_pylist() == ["é", "水"]


def test_utf16_without_a_mark_is_told(tmp_path):
    with pytest.raises(InputError, match="UTF-16 without a byte order mark; save it as UTF-8"):
        rows(save(tmp_path / "d.csv", "smiles,y\nCCO,1\n".encode("utf-16-le")))


@pytest.mark.parametrize("how", ["gz", "bz2", "xz", "zip", "parquet"])
def test_what_is_no_text_is_told_by_its_first_bytes(tmp_path, how):
    content = {
        "gz": gzip.compress(b"smiles\nC\n"), "bz2": bz2.compress(b"smiles\nC\n"),
        "xz": lzma.compress(b"smiles\nC\n"), "zip": b"PK\x03\x04xxxx", "parquet": b"PAR1xxxx",
    }[how]  # fmt: skip
    path = tmp_path / "d.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match="its name says text, but it is"):
        rows(path)


def test_names_that_are_not_utf8_are_an_error_and_columns_unread_are_not(tmp_path):
    path = save(tmp_path / "d.csv", "smiles,name\nC,a\nCC,\xe9\n".encode("latin-1"))
    assert rows(path).num_rows == 2
    with pytest.raises(InputError, match="not UTF-8 in 1 or more rows, the first row 2; save"):
        rows(path, id_column="name")


@pytest.mark.parametrize("name", ["d.csv", "d.smi", "d.json", "d.sdf", "d.jsonl"])
@pytest.mark.parametrize("how", ["gz", "bz2", "xz", "zst"])
def test_compressed_files(tmp_path, name, how):
    text = {
        "d.csv": "smiles\nCCO\nCC\n",
        "d.smi": "CCO\nCC\n",
        "d.json": '[{"smiles": "CCO"}, {"smiles": "CC"}]',
        "d.jsonl": '{"smiles": "CCO"}\n{"smiles": "CC"}\n',
        "d.sdf": sdf(["CCO", "CC"], three_d=False),
    }[name].encode()
    made = {
        "gz": lambda: gzip.compress(text[:9]) + gzip.compress(text[9:]),
        "bz2": lambda: bz2.compress(text),
        "xz": lambda: lzma.compress(text),
        "zst": lambda: pa.Codec("zstd").compress(text, asbytes=True),
    }[how]()
    path = tmp_path / f"{name}.{how}"
    path.write_bytes(made)
    assert rows(path)["smiles"].to_pylist() == ["CCO", "CC"]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view(), pa.binary()])
def test_text_of_every_kind_in_parquet(tmp_path, kind):
    def text(values):
        return pa.array(values, pa.string()).cast(kind)

    path = parquet(
        tmp_path / "d.parquet", smiles=text(["CCO", None, "CC"]), name=text(["a", "b", "c"]),
        y=text(["1", "", "true"]), split=text(["train", "val", "test"]),
    )  # fmt: skip
    found = rows(path, id_column="name", label_column="y", split_column="split")
    assert found["smiles"].to_pylist() == ["CCO", None, "CC"]
    assert found["id"].to_pylist() == ["a", "b", "c"] and found["label"].to_pylist() == [1, None, 1]
    assert found["split"].to_pylist() == ["train", "iid_val", "iid_test"]


def test_names_that_pandas_made_floats_are_whole_numbers(tmp_path):
    years = pa.array([2001.0, float("nan"), 2003.0])
    coded = pa.array(["a", "b", "a"]).dictionary_encode()
    path = parquet(tmp_path / "d.parquet", smiles=["C", "CC", "CO"], year=years, coded=coded)
    assert rows(path, domain_column="year")["domain"].to_pylist() == ["2001", None, "2003"]
    assert rows(path, domain_column="coded")["domain"].to_pylist() == ["a", "b", "a"]
