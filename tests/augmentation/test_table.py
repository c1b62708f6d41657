"""Which rows are training, validation and test, in which groups; and what cannot be used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.augmentation.settings import AugmentSettings
from pipeline.augmentation.table import read_table
from pipeline.runtime.errors import InputError
from tests.augmentation.made_table import columns, settings_of


def test_every_row_has_its_part_and_group(tmp_path):
    made = columns()
    kind, part = made["kind"], made["part"]
    kind[0], part[50] = None, None
    table = read_table(settings_of(tmp_path / "t.parquet", made | {"kind": kind, "part": part}))
    assert (table.rare, table.common) == ("site", "other")
    assert dict(zip(table.rejected["id"].to_pylist(), table.rejected["reason"].to_pylist())) == {
        "r0": "it has no class", "r50": "it has no split",
    }  # fmt: skip
    sizes = {name: part.counts()["groups"] for name, part in table.tests.items()}
    counts = {"rows": 358, "rare": 39, "groups": 30, "groups_with_rare": 30}
    assert table.train.counts() == counts
    assert sizes == {"iid_test": 12} and table.val.counts()["groups"] == 8
    used = sum(len(part.groups) for part in (table.train, table.val, *table.tests.values()))
    assert used + table.rejected.num_rows + table.other_splits == table.rows_in == 600
    assert not table.notes and "class site is in 12 groups" in table.warnings[0]


def test_rows_without_a_group_are_groups_of_their_own_and_that_is_told(tmp_path, caplog):
    made = columns()
    groups = [None if row % 3 == 0 else "NA" if row % 3 == 1 else g
              for row, g in enumerate(made["g"])]  # fmt: skip
    table = read_table(settings_of(tmp_path / "t.parquet", {"g": groups}))
    assert "400 of 600 rows have no group" in caplog.text and "400 of 600" in table.notes[0]
    every = np.concatenate(
        [part.groups for part in (table.train, table.val, *table.tests.values())]
    )
    assert len(np.unique(every)) == 400 + 50
    alone = read_table(settings_of(tmp_path / "t.parquet", group_column=None))
    assert alone.train.counts()["groups"] == 360


def test_rows_that_training_has_seen_are_told(tmp_path):
    made = columns()
    made["x"][38] = made["x"][0]  # of test, of train
    table = read_table(settings_of(tmp_path / "t.parquet", made))
    assert any("iid_test: 1 of 144 rows have the features of a training" in w
               for w in table.warnings)  # fmt: skip


@pytest.fixture(scope="module")
def molecules(hiv_smiles, tmp_path_factory) -> Path:
    """150 molecules with a split, a class in words and in numbers, and two kinds of groups."""
    path = tmp_path_factory.mktemp("molecules") / "molecules.csv"
    rows = [
        f"{smiles},{('train', 'train', 'iid_val', 'iid_test', 'ood_val')[row % 5]},"
        f"{('yes', 'no', 'no')[row % 3]},{int(row % 3 == 0)},plate {row % 7},series {row % 11}"
        for row, smiles in enumerate(hiv_smiles[:150])
    ]
    path.write_text("\n".join(["smiles,split,active,label,plate,series", *rows]) + "\n")
    return path


@pytest.mark.parametrize(
    "flags, rare, groups",
    [
        ({"label_column": "label", "domain_column": "plate"}, "1", 7),
        ({"class_column": "active", "group_column": "series"}, "yes", 11),
        ({"class_column": "active", "domain_column": "plate"}, "yes", 7),
        ({"label_column": "label", "domain_column": "plate", "group_column": "series"}, "1", 11),
    ],
)
def test_molecules_have_a_class_and_a_group_each(
    ray_session, encoder_in_process, molecules, flags, rare, groups
):
    settings = AugmentSettings(
        data_file=str(molecules), foundation_model="descriptors", device="cpu",
        cache_root=str(molecules.parent / "store"), split_column="split", **flags,
    )  # fmt: skip
    table = read_table(settings)
    counts = {"rows": 60, "rare": 20, "groups": groups, "groups_with_rare": groups}
    assert table.rare == rare and table.train.counts() == counts
    assert list(table.tests) == ["iid_test"] and table.other_splits == 30  # ood_val
    if flags.get("group_column", flags.get("domain_column")) == "series":
        train = [row for row in range(150) if row % 5 < 2]
        same = np.equal.outer(table.train.groups, table.train.groups)
        np.testing.assert_array_equal(same, np.equal.outer(*[np.array(train) % 11] * 2))


def test_a_wrong_column_is_told_by_its_own_flag(molecules):
    for flag in ("class_column", "group_column", "domain_column"):
        settings = AugmentSettings(data_file=str(molecules), split_column="split",
                                   foundation_model="descriptors", **{flag: "nope"})  # fmt: skip
        with pytest.raises(InputError, match=f"no column 'nope'.* Set --{flag}$"):
            read_table(settings)


def test_a_molecule_in_two_splits_stops(ray_session, molecules, tmp_path):
    lines = molecules.read_text().splitlines()
    twice = tmp_path / "twice.csv"
    twice.write_text("\n".join([*lines, lines[1].replace(",train,", ",iid_test,")]) + "\n")
    settings = AugmentSettings(
        data_file=str(twice), foundation_model="descriptors", device="cpu", label_column="label",
        cache_root=str(tmp_path / "store"), split_column="split",
    )  # fmt: skip
    with pytest.raises(InputError, match="1 molecules are in more than one split"):
        read_table(settings)


def replaced(name: str, old: str, new: str) -> dict[str, list[str]]:
    return {name: [new if value == old else value for value in columns()[name]]}


@pytest.mark.parametrize(
    "changes, settings, told",
    [
        ({"kind": ["a", "b", "c"] * 200}, {}, "must be two classes, found 'a' .200., 'b'"),
        (replaced("kind", "site", "other"), {}, "must be two classes, found 'other' .600."),
        (replaced("part", "test", "spare"), {}, "no test rows: no split is ood_test or iid_test; "
         "there are iid_val .96., spare .144., train .360.. Name one by --test_split"),
        (replaced("part", "val", "spare"), {}, "no rows of split iid_val .--val_split"),
        ({}, {"test_split": ["nope"]}, "no rows of split nope .--test_split"),
        ({}, {"test_split": ["val"]}, "they must differ"),
        ({}, {"split_column": None}, "no row has a class and a split"),
        ({}, {"rare_class": "nope"}, "--rare_class nope: no such class; there are 'other'"),
        ({}, {"rare_share": 0.1}, "--rare_share 0.1: class site has 40 of 360 training rows"),
        ({}, {"rare_class": "other"}, "name the other class by --rare_class"),
        ({}, {"group_column": "nope"}, "--group_column nope: .* has no such column"),
        ({"kind": ["site" if row % 30 == 0 else "other" for row in range(600)]}, {},
         "12 training rows of the rare class site, at least 20"),
        ({"kind": ["site" if row % 50 < 32 and row % 5 == 0 else "other" for row in range(600)]},
         {}, "split iid_val has no row of class site|split iid_test has no row of class site"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_one_line(tmp_path, changes, settings, told):
    with pytest.raises(InputError, match=told) as caught:
        read_table(settings_of(tmp_path / "t.parquet", changes, **settings))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "settings, told",
    [
        ({"methods": ["magic"]}, "--methods magic: no such method; there are nothing, class_w"),
        ({"seeds": [1, 1]}, "--seeds .* none twice"),
        ({"seeds": 0}, "--seeds 0"),
        ({"seeds": [-1]}, "a seed is at least 0"),
        ({"holdout_share": 0.6}, "--holdout_share must be below 0.5"),
    ],
)
def test_wrong_settings_are_one_line(settings, told):
    with pytest.raises(InputError, match=told):
        AugmentSettings(data_file="t.parquet", **settings)


def test_seeds_are_a_number_of_them_or_themselves():
    assert AugmentSettings(data_file="t", seeds=3, seed=10).all_seeds == [10, 11, 12]
    assert AugmentSettings(data_file="t", seeds=[4, 9]).all_seeds == [4, 9]
