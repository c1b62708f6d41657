"""jobs.check: what is understood of a file, and what a run would cost."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

from jobs import check as check_job
from jobs.cli import main
from pipeline.checking import run
from pipeline.checking.report import Understood
from pipeline.checking.settings import CheckSettings
from pipeline.checking.tally import COUNTERS, SUMS, Tally, tally_of
from pipeline.encoding.cost.costs import Costs, costs_of, keep_costs
from pipeline.encoding.plan import plan_encoding
from pipeline.encoding.settings import EncodeSettings
from pipeline.molecules.formats import read_rows
from pipeline.molecules.kinds import SMILES
from pipeline.molecules.parsers import SmilesParser
from pipeline.molecules.reading.content import Content
from pipeline.molecules.reading.raw_rows import RAW, raw_rows
from pipeline.runtime.errors import InputError
from tests.checking.looked_at import tally_of_file, told
from tests.molecules.data_files import save

LIBRARY = (
    "Canonical SMILES;code;y;part;target\n"
    "CCO;a;1;train;T1\nOCC;b;0;train;T1\n[Na+].[Cl-];c;1;val;T2\nC1CC;d;1;train;T2\n"
    "CCN;a;;test;\nc1ccccc1O;;0.5;train;T1\nNO STRUCTURE;f;1;train;T1\n"
)
COLUMNS = {"id_column": "code", "label_column": "y", "split_column": "part",
           "domain_column": "target"}  # fmt: skip


@pytest.fixture
def library(tmp_path):
    return save(tmp_path / "library.csv", LIBRARY)


def test_what_is_understood_of_a_table_is_told(library, tmp_path):
    found, lines = told(library, **COLUMNS, report=str(tmp_path / "report.json"))
    assert lines["file"] == [f"{library}: a table, semicolons between cells"]
    assert "smiles from 'Canonical SMILES', label from 'y'" in lines["columns"][0].replace(
        "id from 'code', ", ""
    ).replace("split from 'part', ", "")
    assert lines["guessed"] == [
        "cells are separated by semicolons",
        "column 'Canonical SMILES' is read as --smiles_column smiles",
    ]
    assert lines["rows"] == ["7 in = 5 molecules + 2 rejected"]
    assert "1: SMILES does not parse" in lines["rejected"]
    assert lines["ids"] == [
        "7, 1 of them made; 1 occurs more than once, 1 is empty: jobs.encode and jobs.train refuse "
        "these, jobs.score takes them"
    ]
    assert lines["repeated"] == [
        "1 rows repeat one of 4 molecules; 1 molecules have different labels"
    ]
    assert lines["labels"] == ["1 × 0, 1 × 0.5, 2 × 1; 1 molecules without"]
    assert lines["splits"] == [
        "3: train 3, iid_val 1, iid_test 1",
        "no ood_val, ood_test: training needs all of train, iid_val, iid_test, ood_val, ood_test "
        "(those called test not with --finetune_encoder); jobs.split makes them",
    ]
    assert lines["domains"] == ["2: T1 3, T2 1; 1 molecules without"]
    assert lines["fragments"] == ["1 molecules of several fragments (--fragments keep)"]
    assert lines["structures"] == ["of 4 drawn: 3 3d, 1 clashing"]
    assert "store" not in lines and "cost" not in lines
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["rows_in"] == 7 and report["read_from"]["smiles"] == "Canonical SMILES"
    assert report["rows_in"] == report["molecules"] + report["rejected"]


def test_a_whole_tally_is_that_of_its_pieces(library):
    whole, pieces = (tally_of_file(library, rows, **COLUMNS) for rows in (100, 2))
    for name in (*SUMS, *COUNTERS, "molecules", "sample", "counted"):
        assert getattr(whole, name) == getattr(pieces, name), name
    assert np.array_equal(whole.distinct(), pieces.distinct())
    assert whole.conflicts() == pieces.conflicts() == 1
    assert whole.repeated_ids() == pieces.repeated_ids() == 1
    assert whole.overlap() == pieces.overlap() == 0
    assert whole.sample["key"].to_pylist() == sorted(whole.distinct().astype(str))[:3]


def understood(path, tally):
    content = Content("a table", [], None)
    settings = CheckSettings(data_file=str(path))
    return Understood(settings, 1, content, {}, SMILES, [], tally, {}, None)


def test_many_reasons_that_quote_their_row_lose_no_row(tmp_path):
    written = [f"CC text {i}: more" for i in range(30_000)]
    rows = raw_rows({"id": list(map(str, range(30_000))), "smiles": written}, 30_000, RAW)
    total = Tally()
    for start in range(0, 30_000, 4000):
        total.add(tally_of(rows.slice(start, 4000), "d", SmilesParser(), 3), 3)
    assert (total.rows, total.molecules, total.rejected) == (30_000, 0, 30_000)
    lines = dict(understood(tmp_path / "d.csv", total).lines())
    assert lines["rows"] == "30,000 in = 0 molecules + 30,000 rejected"
    assert lines["rejected"] == "30,000: text after a blank"
    assert lines["repeated"] == "no molecules"


def test_many_domains_lose_no_molecule(tmp_path):
    total = Tally()
    for start in range(0, 30_000, 4000):
        names = [f"D{i}" for i in range(start, start + 4000)]
        total.add(Tally(domains=Counter([*names, "common", "common", None])), 3)
    assert total.domains.total() == 32_024
    found = understood(tmp_path / "d.csv", total)
    domains = dict(found.lines())["domains"]
    assert domains.startswith("at least 10,000: common 16, D")
    assert domains.endswith(" and others; 8 molecules without")
    summary = found.summary()
    assert (summary["domains"], summary["more_domains"]) == (10_000, True)


def test_a_file_without_rows_is_one_line(tmp_path, capsys):
    path = save(tmp_path / "d.csv", "smiles,label\n")
    assert main(CheckSettings, check_job.check, "check", ["--data_file", str(path)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.endswith("d.csv: the file has no rows")


def test_only_ids_that_are_made_count_as_made(tmp_path):
    path = save(tmp_path / "x.csv", "id,smiles\nx:alpha,C\nx:1b,CC\n,CCC\n")
    found, lines = told(path, id_column="id")
    assert (found.tally.made_ids, found.tally.empty_ids) == (1, 1)
    path = save(tmp_path / "y.csv", "id,smiles\ny:alpha,C\ny:1b,CC\ny,CCC\n")
    assert told(path, id_column="id")[1]["ids"] == ["3; 0 occur more than once"]


@pytest.mark.parametrize(
    "names, refused",
    [
        (["a", "a", "b", "b", "c"], "2 occur more than once"),
        (["a", "", "b", "", "c"], "0 occur more than once, 2 are empty"),
    ],
)
def test_ids_that_other_jobs_refuse_are_told(tmp_path, names, refused):
    written = "".join(f"{name},{'C' * (i + 1)}\n" for i, name in enumerate(names))
    path = save(tmp_path / "x.csv", f"code,smiles\n{written}")
    with pytest.raises(InputError):
        read_rows(CheckSettings(data_file=str(path), id_column="code"))
    [line] = told(path, id_column="code")[1]["ids"]
    assert line.endswith(
        f"; {refused}: jobs.encode and jobs.train refuse these, jobs.score takes them"
    )
    assert "refuse" not in told(path)[1]["ids"][0]


def test_rows_that_cannot_be_read_have_no_empty_ids(tmp_path):
    path = save(tmp_path / "x.csv", "code,smiles\na,C\nb,CC,1\nc,CCC\n")
    assert read_rows(CheckSettings(data_file=str(path), id_column="code")).num_rows == 3
    [line] = told(path, id_column="code")[1]["ids"]
    assert line == "3, 1 of them made; 0 occur more than once"


def test_molecules_in_several_splits_are_told(tmp_path):
    rows = ["C,train", "CC,iid_val", "CCC,iid_test", "CCCC,ood_val", "CO,ood_test", "OC,train",
            "OC,train", "CN,", "CN,train"]  # fmt: skip
    path = save(tmp_path / "x.csv", "\n".join(["smiles,split", *rows]))
    found, lines = told(path, split_column="split")
    assert lines["splits"][1:] == [
        "1 molecule is in more than one split: training refuses them without --allow_overlap"
    ]
    assert found.summary()["molecules_in_several_splits"] == 1
    assert tally_of_file(path, 2, split_column="split").overlap() == 1
    whole = save(tmp_path / "y.csv", "\n".join(["smiles,split", *rows[:5]]))
    assert len(told(whole, split_column="split")[1]["splits"]) == 1


def test_looking_at_a_file_writes_nothing(library, tmp_path):
    before = sorted(tmp_path.iterdir())
    told(library, **COLUMNS, cache_root=str(tmp_path / "store"))
    assert sorted(tmp_path.iterdir()) == before
    with pytest.raises(InputError, match="--fragments keep"):
        told(library, structures="file", fragments="largest")


def test_many_rows_are_counted_on_all_cores(ray_session, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "BLOCK_ROWS", 7)
    written = ["C" * (1 + i % 9) if i % 5 else "xx" for i in range(60)]
    found, lines = told(save(tmp_path / "d.smi", "\n".join(written)))
    assert lines["rows"] == ["60 in = 48 molecules + 12 rejected"]
    assert len(found.tally.distinct()) == 9


@pytest.mark.parametrize(
    "content, words",
    [
        ("1\tCC(=O)O\n2\tCCO\n", ["none of 2 rows", "the other way round", "column_2"]),
        ("InChI=1S/CH4/h1H4\n", ["is an InChI"]),
        ("12\n13\n", ["is a number"]),
        ("aspirin\nibuprofen\n", ["the first, d:0, is 'aspirin'"]),
    ],
)
def test_a_file_without_a_molecule_is_one_line_with_the_likely_cause(
    tmp_path, capsys, content, words
):
    path = save(tmp_path / "d.smi", content)
    assert main(CheckSettings, check_job.check, "check", ["--data_file", str(path)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert all(word in line for word in words)


def test_an_encoder_that_is_named_says_what_a_run_would_cost(
    ray_session, encoder_in_process, tmp_path, small_weights, moses_smiles
):
    path = save(tmp_path / "d.smi", "\n".join(moses_smiles[:30]))
    cache = str(tmp_path / "store")
    changes = {"foundation_model": "unimol", "weights": str(small_weights), "cache_root": cache,
               "device": "cpu", "sample": 8}  # fmt: skip
    found, lines = told(path, **changes)
    assert lines["store"] == [f"0 molecules in {cache}, 30 to make"]
    assert found.cost.now and found.cost.measured_on == 8 and found.cost.core_hours > 0
    assert "measured now on 8 molecules" in lines["cost"][0]
    assert sum(found.structures.values()) == 8
    _, lines = told(path, **changes)  # the sample is kept
    assert lines["store"] == [f"8 molecules in {cache}, 22 to make"]

    settings = EncodeSettings(data_file=str(path), weights=str(small_weights), cache_root=cache,
                              device="cpu")  # fmt: skip
    plan = plan_encoding(settings)
    assert costs_of(plan) is None
    keep_costs(Costs(10, 1.0, 1.0, 1.0), plan)
    assert costs_of(plan) is None  # too few molecules
    keep_costs(Costs(1000, 3.0, 1.0, 2e9), plan)
    found, lines = told(path, **changes)
    assert not found.cost.now and found.cost.measured_on == 1000
    left = found.cost.to_make
    assert found.cost.core_hours == pytest.approx(left * 4 / 3600)
    assert found.cost.gigabytes == pytest.approx(left * 2) and found.cost.gpu_hours == 0
    assert "as measured on 1,000 molecules" in lines["cost"][0]
    keep_costs(Costs(1000, 3.0, 1.0, 2e9, graph_seconds=0.5), plan)
    cost = told(path, **changes)[0].cost
    assert cost.core_hours == pytest.approx(cost.to_make * 4.5 / 3600)


def test_proteins_are_told_as_sequences(tmp_path):
    path = save(tmp_path / "d.fasta", ">a\nMKLV\n>b\nmklv*\n>c\nMK-LV\n")
    found, lines = told(path, report=str(tmp_path / "report.json"))
    assert lines["file"] == [f"{path}: a FASTA file"]
    assert "sequence from '(sequence)'" in lines["columns"][0]
    assert lines["rows"] == ["3 in = 2 sequences + 1 rejected"]
    assert lines["rejected"] == ["1: sequence has gaps, as in an alignment; leave them out"]
    assert "fragments" not in lines and "structures" not in lines
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["molecules_are"] == "sequence" and report["distinct_molecules"] == 1
    with pytest.raises(InputError, match="d.fasta holds sequences, and ecfp takes SMILES"):
        told(path, foundation_model="ecfp")
