"""Tables as text: the rows that the file has, at any size, whatever its quotation marks."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem

from pipeline.molecules.reading import content, delimited, text
from pipeline.molecules.reading.delimited import open_delimited
from pipeline.runtime.errors import InputError
from tests.molecules.data_files import rows, save


def table(path, usual=","):
    def smiles_of(cells):
        return "smiles" if "smiles" in cells else None

    found = open_delimited(str(path), usual, smiles_of, lambda rows: None)
    pieces = list(found.pieces(found.columns))
    columns = [[value for piece in pieces for value in piece.columns[name]]
               for name in found.columns]  # fmt: skip
    refused = [row for piece in pieces for row in piece.refused]
    return found, [list(row) for row in zip(*columns)], refused


CELLS = st.text(st.sampled_from("abC(=)1 ,;\t|\"\n\r'é"), max_size=8)
ENDS = st.sampled_from(["\n", "\r\n"])


@settings(max_examples=150, deadline=None)
@given(
    made=st.lists(st.tuples(CELLS, CELLS, CELLS), min_size=1, max_size=30),
    delimiter=st.sampled_from(",;|"), end=ENDS, quote_all=st.booleans(),
)  # fmt: skip
def test_what_a_csv_writer_writes_is_read_back(tmp_path_factory, made, delimiter, end, quote_all):
    text = io.StringIO(newline="")
    quote_all |= any("\r" in cell for row in made for cell in row)  # or csv leaves it bare
    quoting = csv.QUOTE_ALL if quote_all else csv.QUOTE_MINIMAL
    writer = csv.writer(text, delimiter=delimiter, lineterminator=end, quoting=quoting)
    writer.writerows([("smiles", "b", "c"), *made])
    path = save(tmp_path_factory.mktemp("d") / "d.csv", text.getvalue())
    found, values, refused = table(path)
    assert values == list(map(list, made)) and not refused
    assert ("cells are separated by" in "".join(found.notes)) == (delimiter != ",")


ONE_OR_OTHER = CELLS.filter(lambda cell: not ("\t" in cell and ("\n" in cell or "\r" in cell)))


@settings(max_examples=150, deadline=None)
@given(made=st.lists(st.tuples(ONE_OR_OTHER, ONE_OR_OTHER), min_size=1, max_size=20), end=ENDS)
def test_quoted_cells_of_a_tsv_are_read_back(tmp_path_factory, made, end):
    """As Excel and pandas write it: marks doubled inside a cell that is quoted whole."""

    def quoted(cell: str) -> str:
        special = any(sign in cell for sign in '"\t\n\r')
        return '"' + cell.replace('"', '""') + '"' if special else cell

    lines = ["smiles\tb", *("\t".join(map(quoted, row)) for row in made)]
    path = save(tmp_path_factory.mktemp("d") / "d.tsv", (end.join(lines) + end).encode())
    _, values, refused = table(path, "\t")
    assert values == list(map(list, made)) and not refused


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_mark_that_is_not_balanced_is_literal_in_a_tsv(tmp_path, end):
    lines = ["smiles\tname\ty", 'CO\t"alpha\t1', "CC\tplain\t0", 'CN\t5" nail\t1',
             'CF\t"beta\t0', 'CCl\t"in ""marks"""\t1', "C\tlast\t0"]  # fmt: skip
    _, values, refused = table(save(tmp_path / "d.tsv", end.join(lines)), "\t")
    names = ['"alpha', "plain", '5" nail', '"beta', 'in "marks"', "last"]
    assert [row[1] for row in values] == names and not refused
    assert [row[2] for row in values] == list("101010")


def test_marks_around_what_would_each_be_a_row_are_literal_in_a_tsv(tmp_path, caplog):
    lines = ["smiles\tname", 'CCO\t"alpha', "CCN\tbeta", 'CCF\tdelta"', "CCCl\te",
             'CO\t"one\ntwo"', "C\tend"]  # fmt: skip
    _, values, refused = table(save(tmp_path / "d.tsv", "\n".join(lines)), "\t")
    names = ['"alpha', "beta", 'delta"', "e", "one\ntwo", "end"]
    assert [row[1] for row in values] == names and not refused
    assert "from line 2 on, quotation marks enclose lines that would each be a row" in caplog.text


def test_each_line_of_a_tsv_is_looked_at_once_for_each_opened_mark(tmp_path, monkeypatch):
    """A mark that nothing closes is followed once, and not line after line again."""
    scanned = []

    class Counted:
        def match(self, text, place=0):
            scanned.append(len(text))
            return INSIDE.match(text, place)

    INSIDE = delimited._INSIDE
    monkeypatch.setattr(delimited, "_INSIDE", Counted())
    lines = ["smiles\tname", 'CCO\t"open', *(f'C\t5""x and more {i}' for i in range(3000))]
    _, values, _ = table(save(tmp_path / "d.tsv", "\n".join(lines)), "\t")
    assert len(values) == 3001
    assert sum(scanned) < 10 * sum(map(len, lines))


@pytest.mark.parametrize(
    "lines, told",
    [
        (["smiles,name,y", 'CO,"alpha,1', "CC,plain,0"], "line 2"),
        (["smiles,name,y", "CC,plain,0", 'CO,"alpha,1', "CC,plain,0", 'CO,"beta,1'], "line 3"),
        (["smiles,name,y", 'CO,"two\nlines","alpha,1', "CC,plain,0"], "line 3"),
        (["smiles,name", 'CO,"a"b'], "line 2"),
    ],
)
def test_a_mark_that_is_not_closed_is_an_error_that_names_its_line_in_a_csv(tmp_path, lines, told):
    with pytest.raises(InputError, match=f"opens a cell in {told} "):
        table(save(tmp_path / "d.csv", "\n".join(lines)))


def test_a_mark_that_is_never_closed_does_not_fill_the_memory(tmp_path, monkeypatch):
    csv.field_size_limit(1000)
    try:
        with pytest.raises(InputError, match="opens a cell in line 2 "):
            table(save(tmp_path / "d.csv", 'smiles,b\nC,"x\n' + "CC,1\n" * 10_000))
    finally:
        csv.field_size_limit(delimited.LARGEST_CELL)


def test_a_cell_that_spans_what_look_like_rows_is_told(tmp_path, caplog):
    table(save(tmp_path / "d.csv", 'smiles,b,c\nC,"x,1\nCC,y",2\nCO,z,3\n'))
    assert "from line 2 on, quotation marks enclose lines that would each be a row" in caplog.text


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_mol_blocks_in_cells_of_a_large_file_are_no_rows(tmp_path, end):
    """Above 16 MiB, with a line end on every boundary of the blocks that readers take."""
    block = Chem.MolToMolBlock(Chem.MolFromSmiles("CC(=O)Oc1ccccc1C(=O)O")).replace("\n", end)
    count = 16_000
    lines = [f'{"C" * (1 + i % 50)},"{block}",{i},"a, comment{end}CCO,1,2"' for i in range(count)]
    path = tmp_path / "d.csv"
    path.write_bytes(end.join(["smiles,mol_block,y,z", *lines]).encode())
    assert path.stat().st_size > 17 * 2**20
    found = rows(path, label_column="y")
    assert found["label"].to_pylist() == list(range(count))
    assert found["smiles"].to_pylist() == ["C" * (1 + i % 50) for i in range(count)]


def test_smiles_with_a_line_end_in_their_quotes_are_whole_rows(tmp_path):
    """As ZINC250k is published."""
    lines = [f'"{"C" * (1 + i % 9)}\n",{i}' for i in range(20_000)]
    found = rows(save(tmp_path / "d.csv", "\n".join(["smiles,logP", *lines])), label_column="logP")
    assert found.num_rows == 20_000
    assert found["label"].to_pylist() == list(range(20_000))


@pytest.mark.parametrize("where", range(-3, 4))
def test_line_ends_at_the_edge_of_what_is_read_at_once(tmp_path, where):
    edge = 8192 + where  # Python's and fsspec's buffers
    first = "smiles,y\r\n"
    filler = "C" * (edge - len(first) - 2) + ",1\r\n"
    found = rows(save(tmp_path / "d.csv", (first + filler + "CC,2\r\nCO,3\r\n")), label_column="y")
    assert found["label"].to_pylist() == [1, 2, 3]


def test_rows_of_another_width_are_refused_in_their_place(tmp_path, monkeypatch):
    monkeypatch.setattr(content, "PIECE_ROWS", 2)
    _, values, refused = table(save(tmp_path / "d.csv", "smiles,b\nC,1\n\nC,1,2\nCC\nCO,3\n"))
    assert values == [["C", "1"], ["CO", "3"]]
    assert [(row.position, row.text) for row in refused] == [(1, "C,1,2"), (2, "CC")]


def test_a_header_may_be_longer_than_the_first_look(tmp_path):
    names = ["smiles", *(f"fp_{i:06d}" for i in range(40_000))]
    path = save(tmp_path / "d.csv", ",".join(names) + "\nCCO" + ",0" * 40_000 + "\n")
    assert rows(path, label_column="fp_039999")["label"].to_pylist() == [0]


@pytest.mark.parametrize("name", ["d.csv", "d.tsv", "d.smi", "d.jsonl", "d.sdf"])
def test_a_line_without_an_end_is_an_error_and_does_not_fill_the_memory(
    tmp_path, monkeypatch, name
):
    monkeypatch.setattr(text, "LONGEST_LINE", 5000)
    path = save(tmp_path / name, ("smiles\nCCO\n" if "sv" in name else "") + "C" * 6000 + "\n")
    with pytest.raises(InputError, match="has 5,000 characters or more"):
        rows(path)


@pytest.mark.parametrize("delimiter", list(",;\t|"))
@pytest.mark.parametrize("name", ["d.csv", "d.tsv", "d.txt", "D.CSV"])
def test_the_delimiter_is_told_by_the_header(tmp_path, name, delimiter):
    lines = [["name", "Canonical SMILES", "y"], ["a b", "CCO", "1.5"], ["c", "CC", "2"]]
    path = save(tmp_path / name, "\n".join(delimiter.join(row) for row in lines))
    found = rows(path, label_column="Y", id_column="name")
    assert found["smiles"].to_pylist() == ["CCO", "CC"]
    assert found["id"].to_pylist() == ["a b", "c"] and found["label"].to_pylist() == [1.5, 2]


@pytest.mark.parametrize("name", ["d.csv", "d.tsv", "d.txt"])
@pytest.mark.parametrize("delimiter", list(",;\t"))
def test_a_table_without_a_header_loses_no_row(tmp_path, name, delimiter):
    made = [(f"m{i}", "C" * (i + 2), str(i)) for i in range(5)]
    path = save(tmp_path / name, "\n".join(delimiter.join(row) for row in made))
    found = rows(path, id_column="column_1", label_column="column_3")
    assert found["id"].to_pylist() == [row[0] for row in made]
    assert found["smiles"].to_pylist() == [row[1] for row in made]
    assert found["label"].to_pylist() == list(range(5))
    other = rows(path, smiles_column="column_1")["smiles"].to_pylist()
    assert other == [row[0] for row in made]


def test_commas_in_names_are_no_delimiters_where_tabs_are(tmp_path):
    found = rows(save(tmp_path / "d.txt", "CCO\t1,2-ethanediol\nCCN\t1,3-x\n"))
    assert found["smiles"].to_pylist() == ["CCO", "CCN"]


def test_classes_that_could_be_smiles_are_no_molecules(tmp_path):
    lines = "C,CC(=O)Oc1ccccc1\nN,CCO\n"
    found = rows(save(tmp_path / "d.csv", lines))
    assert found["smiles"].to_pylist() == ["CC(=O)Oc1ccccc1", "CCO"]
    assert rows(save(tmp_path / "e.csv", "CCO,drug\nCCN,nondrug\n")).num_rows == 2
