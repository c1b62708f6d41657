"""Giving a split file's molecules their roles: sizes, seeds, domains, overlap."""

from __future__ import annotations

import logging

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pipeline.molecules.identity import molecule_key
from pipeline.molecules.roles import (
    CALIBRATION,
    ROLES,
    assign_roles,
    check_overlap,
    sample_size,
)
from pipeline.molecules.settings import SamplingSettings
from pipeline.runtime.errors import InputError


def split_table(rows: dict[str, int], domain_size: int | None = 7) -> pa.Table:
    """Made-up molecules of a split file; domains of one size, or none."""
    names = [(split, i) for split, count in rows.items() for i in range(count)]
    ids = [f"{split}:{i}" for split, i in names]
    domains = [f"{split}{i // domain_size}" if domain_size else None for split, i in names]
    return pa.table(
        {
            "id": ids,
            "key": [molecule_key(name) for name in ids],
            "smiles": ids,
            "split": [split for split, _ in names],
            "label": pa.nulls(len(ids), pa.float64()),
            "domain": pa.array(domains, pa.string()),
        }
    )


EVERY = (*ROLES, CALIBRATION)
FILE = split_table(
    {"train": 6000, "iid_val": 2000, "iid_test": 2500, "ood_val": 20000, "ood_test": 2500}
)


def roles_of(table: pa.Table, **changes) -> dict[str, pa.Table]:
    how = SamplingSettings(**{"sampling": "drugood", **changes})
    sample = assign_roles(table, how, "split.json", EVERY)
    return {role: sample.filter(pc.equal(sample["role"], role)) for role in EVERY}


def sizes(table: pa.Table, **changes) -> list[int]:
    """Train, validation and test sizes, equal for ID and OOD."""
    count = {role: rows.num_rows for role, rows in roles_of(table, **changes).items()}
    for part in ("train", "val", "test"):
        assert count[f"id_{part}"] == count[f"ood_{part}"]
    return [count[f"id_{part}"] for part in ("train", "val", "test")]


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({}, [2000, 600, 1000]),
        ({"sampling": "good"}, [5000, 1500, 2000]),
        ({"train_size": 50, "test_size": 7}, [50, 600, 7]),
        ({"sampling": "good", "val_size": 9}, [5000, 9, 2000]),
        ({"debug_dataset_size": 100}, [100, 30, 50]),
        ({"debug_dataset_size": 100, "sampling": "good"}, [100, 30, 40]),
        ({"debug_dataset_size": 1}, [1, 1, 1]),
        ({"debug_dataset_size": 40, "train_size": 400}, [40, 60, 100]),
    ],
)
def test_the_preset_and_its_overrides_decide_the_sizes(changes, expected):
    assert sizes(FILE, **changes) == expected


def test_sampling_all_takes_every_molecule():
    roles = roles_of(FILE, sampling="all")
    assert sum(rows.num_rows for rows in roles.values()) == FILE.num_rows
    assert sample_size("id_train", SamplingSettings()) is None


def test_ood_training_molecules_are_in_the_ratio_asked_for(caplog):
    every = roles_of(FILE)
    for ratio, count in ((1.0, 2000), (0.1, 200), (0.02, 40), (1e-6, 1)):
        roles = roles_of(FILE, ood_ratio=ratio)
        kept = set(roles["ood_train"]["key"].to_pylist())
        assert len(kept) == count and kept <= set(every["ood_train"]["key"].to_pylist())
        others = [role for role in every if role != "ood_train"]
        assert all(roles[role].equals(every[role]) for role in others)
    assert "--ood_ratio" not in caplog.text
    assert roles_of(FILE, ood_ratio=2.0)["ood_train"].num_rows == 2000
    assert "--ood_ratio 2 asks for 4,000 OOD training molecules, and there are 2,000" in caplog.text


def test_calibration_is_of_molecules_that_validation_leaves():
    """All of a large iid_val: a quarter; of a sample: as many again; of a small one: none."""
    every, sampled = roles_of(FILE, sampling="all"), roles_of(FILE)
    assert [every[role].num_rows for role in ("id_val", CALIBRATION)] == [1500, 500]
    assert [sampled[role].num_rows for role in ("id_val", CALIBRATION)] == [600, 500]
    small = split_table(dict.fromkeys(("train", "iid_val", "iid_test", "ood_test"), 50)
                        | {"ood_val": 100})  # fmt: skip
    few = roles_of(small, sampling="all")
    assert [few[role].num_rows for role in ("id_val", CALIBRATION)] == [50, 0]


def test_roles_come_from_their_splits_and_share_no_molecule():
    roles = roles_of(FILE)
    for role, rows in roles.items():
        assert set(rows["split"].to_pylist()) == {ROLES.get(role, "iid_val")}
    keys = [key for rows in roles.values() for key in rows["key"].to_pylist()]
    assert len(keys) == len(set(keys))


def test_the_sample_depends_on_data_seed_alone():
    first, again = roles_of(FILE, data_seed=1), roles_of(FILE, data_seed=1)
    other = roles_of(FILE, data_seed=2)
    for role in EVERY:
        assert first[role].equals(again[role])
        assert set(first[role]["key"].to_pylist()) != set(other[role]["key"].to_pylist())


def test_a_role_alone_gets_the_sample_that_it_gets_among_others():
    tests = assign_roles(
        FILE, SamplingSettings(sampling="drugood"), "split.json", ("id_test", "ood_test")
    )
    both = roles_of(FILE)
    assert tests.equals(pa.concat_tables([both["id_test"], both["ood_test"]]))


def ood_cut(table: pa.Table, **changes) -> tuple[pa.Table, pa.Table]:
    roles = roles_of(table, sampling="all", **changes)
    assert roles["ood_train"].num_rows + roles["ood_val"].num_rows == 20000
    return roles["ood_train"], roles["ood_val"]


def shared_domains(first: pa.Table, second: pa.Table) -> set[str]:
    return set(first["domain"].to_pylist()) & set(second["domain"].to_pylist())


def test_ood_validation_is_cut_by_whole_domains_3000_molecules_at_most():
    training, validation = ood_cut(FILE)
    assert not shared_domains(training, validation)
    assert 3000 - 7 < validation.num_rows <= 3000


def test_ood_validation_is_cut_by_molecules_on_request():
    training, validation = ood_cut(FILE, ood_val_by="molecule")
    assert validation.num_rows == 3000
    assert len(shared_domains(training, validation)) > 100


def small(ood_val: int, **changes) -> pa.Table:
    others = ("train", "iid_val", "iid_test", "ood_test")
    return split_table({**dict.fromkeys(others, 5), "ood_val": ood_val}, **changes)


@pytest.mark.parametrize("size", [10, 100, 1003])
def test_ood_validation_takes_a_fifth_of_a_small_split(size):
    by_domain = roles_of(small(size, domain_size=2), sampling="all")["ood_val"]
    by_molecule = roles_of(small(size), sampling="all", ood_val_by="molecule")["ood_val"]
    assert by_molecule.num_rows == size // 5
    assert size // 5 - 2 < by_domain.num_rows <= size // 5


def test_another_data_seed_cuts_other_domains():
    first, second = (ood_cut(FILE, data_seed=seed)[1] for seed in (1, 2))
    assert set(first["domain"].to_pylist()) != set(second["domain"].to_pylist())


def test_without_domains_ood_validation_is_cut_by_molecules():
    assert roles_of(small(100, domain_size=None), sampling="all")["ood_val"].num_rows == 20


def test_domains_larger_than_the_target_still_give_a_whole_one():
    roles = roles_of(small(100, domain_size=60), sampling="all")
    assert roles["ood_val"]["domain"].to_pylist() == ["ood_val1"] * 40


@pytest.mark.parametrize("table", [small(100, domain_size=100), small(1)])
def test_an_ood_val_that_cannot_be_cut_is_an_input_error(table):
    with pytest.raises(InputError, match="too few domains or molecules"):
        roles_of(table)


@pytest.mark.parametrize("absent", sorted(set(ROLES.values())))
def test_an_absent_split_is_an_input_error_that_names_it(absent):
    table = FILE.filter(pc.not_equal(FILE["split"], absent))
    with pytest.raises(InputError, match=f"split {absent} is empty.*--split_column"):
        roles_of(table)


def test_a_file_without_ood_molecules_is_told_as_such():
    table = split_table({"train": 5, "iid_val": 5, "iid_test": 5})
    told = "no OOD molecules, only train, iid_val, iid_test; make a split with jobs.split.*column"
    with pytest.raises(InputError, match=told):
        roles_of(table)
    sample = assign_roles(table, SamplingSettings(), "split.json", ("id_train", "id_test"))
    assert sample.num_rows == 10


@pytest.mark.parametrize("word", ["NA", "nan", "", None])
def test_words_for_nothing_are_no_domain(word):
    table = small(100, domain_size=2)
    names = [word, *table["domain"].to_pylist()[1:]]
    first = table["split"].to_pylist().index("ood_val")
    names[first] = word
    place = table.column_names.index("domain")
    table = table.set_column(place, "domain", pa.array(names, pa.string()))
    assert roles_of(table, sampling="all")["ood_val"].equals(
        roles_of(table, sampling="all", ood_val_by="molecule")["ood_val"]
    )


def test_only_the_splits_of_the_roles_wanted_must_be_there():
    tests = split_table({"iid_test": 5, "ood_test": 6})
    sample = assign_roles(tests, SamplingSettings(), "split.json", ("id_test", "ood_test"))
    assert sample["role"].to_pylist() == ["id_test"] * 5 + ["ood_test"] * 6


def overlapping(count: int) -> pa.Table:
    """The first molecules of iid_test are also the first of train."""
    smiles = np.array(FILE["smiles"].to_pylist(), dtype=object)
    first = {split: FILE["split"].to_pylist().index(split) for split in ("train", "iid_test")}
    for i in range(count):
        smiles[first["iid_test"] + i] = smiles[first["train"] + i]
    return FILE.set_column(FILE.column_names.index("smiles"), "smiles", pa.array(smiles))


def test_overlap_is_an_input_error_that_counts_and_shows_the_first():
    with pytest.raises(InputError) as error:
        check_overlap(overlapping(5), allow=False, source="split.json")
    message = str(error.value)
    assert "5 molecules are in more than one split" in message
    assert message.count("iid_test and train") == 3
    assert "train:0 in" in message and "--allow_overlap" in message
    with pytest.raises(InputError, match="5 molecules"):
        roles_of(overlapping(5))


def test_allowed_overlap_warns_and_goes_on(caplog):
    with caplog.at_level(logging.WARNING):
        assert check_overlap(overlapping(5), allow=True, source="split.json") == 5
        assert sizes(overlapping(5), allow_overlap=True) == [2000, 600, 1000]
    assert "5 molecules are in more than one split" in caplog.text


def test_a_repeat_within_one_split_is_no_overlap():
    twice = pa.concat_tables([FILE, FILE.slice(0, 3)])
    assert check_overlap(twice, allow=False, source="split.json") == 0
