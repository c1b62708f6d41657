"""Making a split: by whole domains, in order, the same each time."""

from __future__ import annotations

import gzip
import json
from collections import Counter

import pyarrow as pa
import pytest
from rdkit import Chem

from jobs import cli
from jobs.split import split as split_job
from pipeline.molecules.identity import canonicalize
from pipeline.molecules.reading.raw_rows import SPLITS
from pipeline.molecules.settings import SplitSettings
from pipeline.molecules.splitting.domains import scaffold_domain
from pipeline.runtime.errors import InputError
from tests.conftest import SAMPLE
from tests.molecules.splitting.cuts import cut

ID_SPLITS = ("train", "iid_val", "iid_test")


BY = {
    "scaffold": {"by": "scaffold"},
    "size": {"by": "size"},
    "count": {"by": "column", "column": "year"},
    "value": {"by": "column", "column": "year", "column_order": "value"},
    "time": {"by": "time", "column": "year"},
    "cluster": {"by": "cluster"},
}


@pytest.fixture(params=BY)
def made(request, molecules) -> dict[str, list[dict]]:
    return cut(molecules, **BY[request.param])


@pytest.fixture(params=[by for by in BY if by != "cluster"])
def in_order(request, molecules) -> dict[str, list[dict]]:
    """Splits that follow an order of the domains."""
    return cut(molecules, **BY[request.param])


def test_a_split_holds_every_molecule_once_with_its_label(made, molecules):
    items = [item for split in SPLITS for item in made[split]]
    labels = dict(zip(molecules["smiles"].to_pylist(), molecules["label"].to_pylist()))
    assert {item["smiles"]: item["reg_label"] for item in items} == labels
    assert len(items) == molecules.num_rows
    assert all(item["cls_label"] == int(item["reg_label"]) for item in items)


def test_no_domain_is_in_two_of_id_ood_val_and_ood_test(made):
    domains = {split: [item["domain_id"] for item in made[split]] for split in SPLITS}
    in_distribution = [d for split in ID_SPLITS for d in domains[split]]
    assert max(in_distribution) < min(domains["ood_val"])
    assert max(domains["ood_val"]) < min(domains["ood_test"])
    every = in_distribution + domains["ood_val"] + domains["ood_test"]
    assert sorted(set(every)) == list(range(max(every) + 1))


def test_fractions_are_60_20_20_up_to_the_domain_on_the_border(in_order):
    total = sum(len(items) for items in in_order.values())
    border = {"id": 0, "ood_val": 0}
    for name, splits in (("id", ID_SPLITS), ("ood_val", ("ood_val",))):
        counts = Counter(item["domain_id"] for split in splits for item in in_order[split])
        border[name] = counts[max(counts)]
    in_distribution = sum(len(in_order[split]) for split in ID_SPLITS)
    assert 0 <= in_distribution - 0.6 * total < border["id"]
    assert 0 <= in_distribution + len(in_order["ood_val"]) - 0.8 * total < border["ood_val"]
    assert len(in_order["train"]) == pytest.approx(0.6 * in_distribution, abs=3)
    assert len(in_order["iid_val"]) == pytest.approx(0.2 * in_distribution, abs=1)


def test_every_big_id_domain_is_cut_60_20_20(in_order):
    counts = {split: Counter(i["domain_id"] for i in in_order[split]) for split in ID_SPLITS}
    sizes = sum(counts.values(), Counter())
    for domain, size in sizes.items():
        for split, share in zip(ID_SPLITS, (0.6, 0.2, 0.2)):
            assert counts[split][domain] == pytest.approx(share * size, abs=1.5), domain


def sorting_values(made: dict, value) -> list[list[float]]:
    """Values of the domains of ID, ood_val and ood_test, in the order of domain ids."""
    groups = []
    for splits in (ID_SPLITS, ("ood_val",), ("ood_test",)):
        items = sorted((i for s in splits for i in made[s]), key=lambda i: i["domain_id"])
        groups.append([value(item) for item in items])
    return groups


def test_scaffolds_and_sizes_come_largest_first(molecules):
    atoms = {"scaffold": lambda i: scaffold_domain(i["smiles"])[1]}
    atoms["size"] = lambda i: Chem.MolFromSmiles(i["smiles"]).GetNumHeavyAtoms()
    for by, value in atoms.items():
        values = sum(sorting_values(cut(molecules, by=by), value), [])
        assert values == sorted(values, reverse=True)


def test_molecules_of_one_scaffold_share_a_domain_and_others_do_not(molecules):
    items = [item for items in cut(molecules).values() for item in items]
    pairs = {(scaffold_domain(item["smiles"])[0], item["domain_id"]) for item in items}
    assert len(pairs) == len({p[0] for p in pairs}) == len({p[1] for p in pairs})


def test_a_columns_domains_come_most_molecules_first_or_by_value(molecules):
    years = Counter(molecules["domain"].to_pylist())
    counts = sum(sorting_values(cut(molecules, **BY["count"]), lambda i: years[i["assay_id"]]), [])
    assert counts == sorted(counts, reverse=True)
    values = sum(sorting_values(cut(molecules, **BY["value"]), lambda i: int(i["assay_id"])), [])
    assert values == sorted(values)


def test_order_by_value_is_numeric_where_values_are_numbers():
    names = ["9", "10", "100", "9.5", "1e3"] * 5
    table = pa.table({"smiles": ["C"] * 25, "label": [0.0] * 25, "domain": names})
    made = cut(table, by="column", column="d", column_order="value", id_fraction=0.4)
    order = {i["domain_id"]: i["assay_id"] for items in made.values() for i in items}
    assert [order[i] for i in range(5)] == ["9", "9.5", "10", "100", "1e3"]


@pytest.mark.parametrize("by", BY)
def test_the_same_input_and_seed_give_the_same_split(molecules, by):
    assert cut(molecules, **BY[by]) == cut(molecules, **BY[by])
    assert cut(molecules, seed=1, **BY[by]) != cut(molecules, seed=2, **BY[by])


def test_max_molecules_is_a_seeded_sample(molecules):
    def sample(**changes):
        items = cut(molecules, max_molecules=150, **changes).values()
        return [item["smiles"] for split in items for item in split]

    assert sample() == sample()
    assert len(sample()) == len(set(sample())) == 150
    assert set(sample(seed=1)) != set(sample(seed=2))


def test_a_split_that_would_be_empty_is_an_input_error(molecules):
    few_domains = molecules.set_column(2, "domain", pa.array(["a"] * 300 + ["b"] * 100))
    with pytest.raises(InputError, match="2 domains over 400 molecules leave .* empty"):
        cut(few_domains, **BY["count"])


def test_a_missing_label_is_null(molecules):
    labels = pa.array([None, float("nan")] * 200, pa.float64())
    made = cut(molecules.set_column(1, "label", labels))
    items = [item for items in made.values() for item in items]
    assert {(item["cls_label"], item["reg_label"]) for item in items} == {(None, None)}


def test_the_shipped_sample_has_large_scaffolds_in_distribution():
    with gzip.open(SAMPLE) as file:
        content = json.load(file)["split"]
    sizes = {
        split: [scaffold_domain(item["smiles"])[1] for item in content[split]] for split in SPLITS
    }
    smallest_id = min(min(sizes[split]) for split in ID_SPLITS)
    assert smallest_id >= max(sizes["ood_val"])
    assert min(sizes["ood_val"]) >= max(sizes["ood_test"])
    keys = [canonicalize(i["smiles"]) for items in content.values() for i in items]
    assert len(keys) == len(set(keys)) == sum(map(len, sizes.values()))


@pytest.mark.parametrize("name", ["split.json", "split.json.gz"])
def test_the_command_writes_the_same_bytes_twice(ray_session, tmp_path, molecules, name, capsys):
    table = tmp_path / "table.csv"
    lines = [",".join(map(str, row.values())) for row in molecules.to_pylist()]
    table.write_text("\n".join(["smiles,y,year", *lines, lines[0], "xx,1,2000"]) + "\n")
    written = []
    for folder in ("first", "second"):
        target = tmp_path / folder / name
        argv = ["--data_file", str(table), "--label_column", "y", "--output", str(target)]
        assert cli.main(SplitSettings, split_job, "split", argv) == 0
        written.append(target.read_bytes())
    assert written[0] == written[1]
    assert "402 in: 1 repeat a molecule, 1 rejected" in capsys.readouterr().out
    content = json.loads(gzip.decompress(written[0]) if name.endswith(".gz") else written[0])
    assert content["split"] == cut(molecules)


def test_the_command_refuses_an_empty_cell_in_the_domain_column(ray_session, tmp_path, capsys):
    table = tmp_path / "table.csv"
    years = ["", *(str(2000 + i) for i in range(19))]
    lines = [f"{'C' * (i + 1)},{year}" for i, year in enumerate(years)]
    table.write_text("\n".join(["smiles,year", *lines]) + "\n")
    argv = ["--data_file", str(table), "--by", "column", "--column", "year"]
    argv += ["--column_order", "value", "--output", str(tmp_path / "split.json")]
    assert cli.main(SplitSettings, split_job, "split", argv) == 2
    assert "'year' is missing in 1 of 20 rows (an empty cell)" in capsys.readouterr().err
