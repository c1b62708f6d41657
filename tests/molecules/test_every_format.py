"""The same table in every format reads alike; lines made to break things lose no row in any."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem

from pipeline.runtime.errors import InputError
from tests.encoding.adversarial import adversarial_lines
from tests.molecules.data_files import rows

TEXT_TYPE = pa.string()
Table = Sequence[tuple[str, str, float | None]]  # SMILES, id, label


def delimited(path: Path, table: Table, delimiter: str) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_ALL)
        writer.writerows([("smiles", "name", "y"), *table])


def lines(path: Path, table: Table, header: bool, gap: str) -> None:
    names = [("smiles", "name", "y")] if header else []
    cells = [(a, b, "" if c is None else c) for a, b, c in table]
    text = "".join(gap.join(map(str, row)) + "\n" for row in [*names, *cells])
    path.write_text(text, encoding="utf-8", newline="")


def objects(table: Table) -> list[dict]:
    return [{"smiles": smiles, "name": name, "y": y} for smiles, name, y in table]


def parquet(path: Path, table: Table, kind: pa.DataType = TEXT_TYPE) -> None:
    smiles, names, labels = zip(*table)
    columns = {"smiles": pa.array(smiles, kind), "name": pa.array(names, kind),
               "y": pa.array(labels, pa.float64())}  # fmt: skip
    pq.write_table(pa.table(columns), path, row_group_size=3)


WRITERS: dict[str, Callable[[Path, Table], object]] = {
    "a.csv": lambda path, table: delimited(path, table, ","),
    "b.csv": lambda path, table: delimited(path, table, ";"),
    "a.tsv": lambda path, table: delimited(path, table, "\t"),
    "a.txt": lambda path, table: delimited(path, table, "|"),
    "a.cxsmiles": lambda path, table: lines(path, table, True, "\t"),
    "a.jsonl": lambda path, table: path.write_text(
        "\n".join(json.dumps(each) for each in objects(table)), encoding="utf-8"
    ),
    "a.json": lambda path, table: path.write_text(json.dumps(objects(table)), encoding="utf-8"),
    "b.json": lambda path, table: path.write_text(
        json.dumps({"split": {"train": objects(table)}}), encoding="utf-8"
    ),
    "a.parquet": parquet,
    "b.parquet": lambda path, table: parquet(path, table, pa.large_string()),
}
# Files of lines cannot hold line ends and tabs; ids are compared without blanks around them.
TEXT = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp", "Zs"]), min_size=1, max_size=6
)
SMILES = st.one_of(st.sampled_from(["C", "CCO", "c1ccccc1", "C |^1:0|", "xx", '"', "|"]), TEXT)
NUMBERS = st.one_of(st.none(), st.floats(-1e6, 1e6, allow_nan=False), st.integers(-5, 5))


@settings(max_examples=60, deadline=None)
@given(table=st.lists(st.tuples(SMILES, TEXT, NUMBERS), min_size=1, max_size=12,
                      unique_by=lambda row: row[1]))  # fmt: skip
def test_a_table_reads_alike_in_every_format(tmp_path_factory, table):
    folder = tmp_path_factory.mktemp("tables")
    for name, write in WRITERS.items():
        write(folder / name, table)
        found = rows(folder / name, id_column="name", label_column="y")
        assert found["smiles"].to_pylist() == [smiles for smiles, _, _ in table], name
        assert found["id"].to_pylist() == [each for _, each, _ in table], name
        assert found["label"].to_pylist() == [y for _, _, y in table], name
        assert found["reason"].null_count == len(table), name


def smi(path: Path, texts: Sequence[str]) -> None:
    path.write_text("\n".join(texts) + "\n", encoding="utf-8", newline="")


def sdf(path: Path, texts: Sequence[str]) -> None:
    """Each text as a record's title, above a structure or in place of one."""
    block = Chem.MolToMolBlock(Chem.MolFromSmiles("CCO")).split("\n", 1)[1]
    records = (f"{text}\n{block if i % 2 else text}\n$$$$\n" for i, text in enumerate(texts))
    start = f"first\n{block}\n$$$$\n"
    path.write_text(start + "".join(records), encoding="utf-8", newline="")


def many(name: str, path: Path, texts: Sequence[str]) -> int:
    """Write texts as SMILES in a format; how many rows the file has then."""
    if name.endswith(".sdf"):
        texts = [text for text in texts if not text.startswith("$$$$")]
        sdf(path, texts)
        return len(texts) + 1
    if name.endswith(".smi"):
        smi(path, ["C", *texts])
        return len(texts) + 1
    if name.endswith(".cxsmiles"):
        lines(path, [(text, f"n{i}", None) for i, text in enumerate(texts)], True, "\t")
    else:
        WRITERS[name](path, [(text, f"n{i}", None) for i, text in enumerate(texts)])
    return len(texts)


@pytest.mark.parametrize("name", [*WRITERS, "a.smi", "a.sdf"])
def test_rows_made_to_break_things_are_read_one_by_one(tmp_path, moses_smiles, name):
    texts = [line.decode("utf-8", errors="replace") for line in adversarial_lines(moses_smiles)]
    texts = [text[:20_000] for text in texts]
    if name in WRITERS and not name.endswith(("smiles", "tsv")):  # their cells hold line ends
        texts = [f"{text}\r\n\t{i}\n" if i % 10 == 0 else text for i, text in enumerate(texts)]
    elif "smi" in name:
        texts = [text.replace("\t", "") for text in texts]
    count = many(name, tmp_path / name, texts)
    found = rows(tmp_path / name)
    ids = found["id"].to_pylist()
    assert len(ids) == len(set(ids)) == count
    if name in WRITERS and not name.endswith("smiles"):
        assert found["smiles"].to_pylist() == texts and found["reason"].null_count == count
    elif name == "a.sdf":
        assert set(found["smiles"].filter(found["reason"].is_null()).to_pylist()) == {"CCO"}


@settings(max_examples=100, deadline=None)
@given(content=st.binary(max_size=300))
@pytest.mark.parametrize(
    "name",
    ["a.csv", "a.tsv", "a.txt", "a.smi", "a.json", "a.jsonl", "a.sdf", "a.parquet", "a.csv.gz",
     "a.smi.zst", "a.smi.xz", "a.fasta"],
)  # fmt: skip
def test_any_bytes_are_rows_or_an_error_of_one_line(tmp_path_factory, name, content):
    path = tmp_path_factory.mktemp("bytes") / name
    path.write_bytes(content)
    try:
        found = rows(path)
    except InputError as error:
        assert "\n" not in str(error)
        return
    ids = found["id"].to_pylist()
    assert len(ids) == len(set(ids)) > 0
