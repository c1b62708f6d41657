"""Data sets by name and by entry: small files in the layouts of benchmarks."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.molecules.reading.raw_rows import SPLITS
from pipeline.runtime.errors import InputError
from pipeline.suite.data.data_sets import located, read_data
from pipeline.suite.data.named_data import DRUGOOD, GOOD, named_file
from pipeline.suite.settings import SuiteSettings
from tests.made_sets import moses, write_table


def suite(root: Path, *data, **changes) -> SuiteSettings:
    home = {"data_root": str(root), "output_dir": str(root / "out"), "cache_root": str(root / "s")}
    return SuiteSettings(data=list(data), **{**home, **changes})


def rows() -> list[tuple[str, str]]:
    """Molecules and their splits."""
    return [(smiles, SPLITS[i % 5]) for i, smiles in enumerate(moses()[:60])]


def write_drugood(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    items: dict[str, list] = {split: [] for split in SPLITS}
    for number, (smiles, split) in enumerate(rows()):
        items[split].append({"smiles": smiles, "cls_label": number % 2, "domain_id": number % 7})
    path.write_text(json.dumps({"split": items}))


def counts(table: pa.Table) -> dict[str, int]:
    found = table["split"].value_counts().to_pylist()
    return {each["values"]: each["counts"] for each in found}


def test_drugood_has_six_splits_and_good_eighteen_sets():
    assert len(DRUGOOD) == 6 and len(GOOD) == 18
    assert "lbap_core_ec50_assay" in DRUGOOD and "zinc:size:no_shift" in GOOD


def test_drugoods_file_is_read_under_its_name(ray_session, tmp_path):
    write_drugood(tmp_path / "drugood/lbap_core_ic50_size.json")
    name = "drugood:lbap_core_ic50_size"
    [data] = read_data(located(suite(tmp_path, name))).values()
    assert data.name == name and data.settings.sampling == "drugood"
    assert counts(data.source.molecules) == dict.fromkeys(SPLITS, 12)
    assert set(data.source.molecules["label"].to_pylist()) == {0, 1}


@pytest.mark.parametrize("ending", [".parquet", ".json"])
def test_goods_exports_are_read_under_their_names(ray_session, tmp_path, ending):
    path = tmp_path / f"good/hiv_scaffold_concept{ending}"
    if ending == ".json":
        write_drugood(path)
    else:
        path.parent.mkdir()
        table = {"smiles": [s for s, _ in rows()], "split": [split for _, split in rows()]}
        domains = [str(i % 7) for i in range(60)]
        pq.write_table(pa.table({**table, "label": [1.0] * 60, "domain": domains}), path)
    [data] = read_data(located(suite(tmp_path, "good:hiv:scaffold:concept"))).values()
    assert data.settings.sampling == "good"
    assert counts(data.source.molecules) == dict.fromkeys(SPLITS, 12)
    assert set(data.source.molecules["domain"].to_pylist()) == {str(i) for i in range(7)}


def test_moleculeaces_table_is_split_by_a_rule_and_its_own_split_left_aside(
    ray_session, tmp_path, caplog
):
    (tmp_path / "moleculeace").mkdir()
    smiles = moses()[:100]
    own = ["train" if i % 5 else "test" for i in range(100)]
    write_table(
        tmp_path / "moleculeace/CHEMBL204_Ki.csv",
        **{"smiles": smiles, "exp_mean [nM]": [10.0] * 100, "y": [i / 10 for i in range(100)],
           "cliff_mol": [0] * 100, "split": own},
    )  # fmt: skip
    settings = suite(tmp_path, "moleculeace:CHEMBL204_Ki:cluster")
    with caplog.at_level("INFO"):
        [data] = read_data(located(settings)).values()
    assert "MoleculeACE's own split" in caplog.text
    found = data.source.molecules
    assert found.num_rows == 100 and set(counts(found)) == set(SPLITS)
    assert sorted(found["label"].to_pylist()) == [i / 10 for i in range(100)]
    caplog.clear()
    with caplog.at_level("INFO"):
        [again] = read_data(located(settings)).values()
    assert again.source.molecules.equals(found)
    assert "split by" not in caplog.text  # a rerun takes the split that is there


def test_moleculenets_table_has_a_label_and_an_entry_overrides_what_it_has(ray_session, tmp_path):
    (tmp_path / "moleculenet").mkdir()
    classes = [i % 2 for i in range(100)]
    table = tmp_path / "moleculenet/bbbp.csv"
    write_table(table, smiles=moses()[:100], p_np=classes, other=[7] * 100)
    name = "moleculenet:bbbp:size"
    other = {"name": "other", "file": name, "label_column": "other", "split": {"by": "scaffold"}}
    first, second = read_data(located(suite(tmp_path, name, other))).values()
    assert set(first.source.molecules["label"].to_pylist()) == {0, 1}
    assert set(second.source.molecules["label"].to_pylist()) == {7}
    assert second.settings.data_file != first.settings.data_file


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("drugood:lbap_core_ic50_scaffold", "drugood/lbap_core_ic50_scaffold.json (or *.json.gz). "
         "None is downloaded: take lbap_core_ic50_scaffold.json"),
        ("drugood:ic50", "no such set; there are: drugood:lbap_core_ic50_scaffold"),
        ("good:zinc:size:no_shift", "good/zinc_size_no_shift.parquet"),
        ("good:hiv:scaffold", "no such set"),
        ("moleculeace:CHEMBL204_Ki:scaffold", "moleculeace/CHEMBL204_Ki.csv"),
        ("moleculeace:CHEMBL204_Ki", "name the table and the rule that splits it"),
        ("moleculenet:hiv:random", "name the table and the rule"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_told_with_where_to_put_it(tmp_path, name, told):
    with pytest.raises(InputError, match=".") as error:
        named_file(name, str(tmp_path))
    assert told in str(error.value) and name.partition(":")[0] in str(error.value)


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"file": "a.csv", "columns": 1}, "unknown key 'columns'"),
        ({"name": "a"}, "has no file"),
        ({"file": "moses.csv", "sampling": "most"}, "'most' is no value of sampling"),
        ({"file": "moses.csv", "split": {"by": "few"}}, "split of moses: 'few' is no value of by"),
        ({"file": "moses.csv", "split": {"by_size": 1}}, "unknown key 'by_size'"),
        ({"file": "moses.csv", "split": "size"}, "give settings of jobs.split"),
        ({"file": "none.csv"}, "none.csv"),
    ],
)
def test_a_wrong_entry_is_told(tmp_path, entry, told, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_table(tmp_path / "moses.csv", smiles=moses()[:5])
    with pytest.raises(InputError, match=".") as error:
        located(suite(tmp_path, entry))
    assert told in str(error.value)


def test_two_data_sets_of_one_name_are_told(tmp_path):
    with pytest.raises(InputError, match="two are called x"):
        located(suite(tmp_path, "a/x.json", "b/x.csv"))
