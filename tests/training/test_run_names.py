"""What was trained before a setting came is found again after it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace

import pytest

from pipeline.molecules.settings import SplitSettings
from pipeline.runtime.train.ray_train import decisive
from pipeline.scoring import screen
from pipeline.training.settings import TrainSettings
from pipeline.training.trainer import NOT_IDENTITY, training_name

CAME_LATER = (
    "model_size", "ood_ratio", "sequence_column", "residues", "min_length", "max_length",
)  # fmt: skip
# As versions before sequences named it: a hash of all settings, and of all defaults.
NAME, IDENTITY = "d145f807a70b4c79d1d6", "15e085d17f5f09636f69"
SPLIT = "122076e64d3a7ddf"
SETTINGS = TrainSettings(data_file="a.csv")


def earlier_settings() -> dict:
    """What an earlier version named a training by, which had not those that came later."""
    without = (*NOT_IDENTITY, *CAME_LATER)
    return {name: value for name, value in asdict(SETTINGS).items() if name not in without}


def digest(content, size: int = 10) -> str:
    text = json.dumps(content, sort_keys=True).encode()
    return hashlib.blake2b(text, digest_size=size).hexdigest()


def test_names_are_those_that_were_written():
    assert training_name(SETTINGS, {"encoder": "unimol"}) == NAME
    assert digest(screen._identity(SETTINGS)) == IDENTITY
    split = SplitSettings(data_file="a.csv", output="split.json.gz")
    assert digest(decisive(split, ("output", "data_file", "dataset")), 8) == SPLIT


@pytest.mark.parametrize(
    "change",
    [{"sequence_column": "x"}, {"residues": "extended"}, {"min_length": 3}, {"max_length": 99}],
)
def test_what_sequences_may_be_decides_a_training(change):
    assert training_name(replace(SETTINGS, **change), {"encoder": "unimol"}) != NAME


def test_names_are_those_of_before():
    earlier = digest([earlier_settings(), {"encoder": "unimol"}])
    identity = {"encoder": "unimol"}
    assert training_name(SETTINGS, identity) == earlier
    # the identity tells the size, and whether it was given does not matter
    assert training_name(replace(SETTINGS, model_size="84m"), identity) == earlier
    assert training_name(replace(SETTINGS, ood_ratio=0.5), identity) != earlier
    assert training_name(SETTINGS, {"encoder": "unimol2", "model_size": "164m"}) != earlier


def test_screens_are_those_of_before():
    earlier = {"settings": earlier_settings(), "weights": None, "files": []}
    assert screen._identity(SETTINGS) == earlier
    for change in ({"model_size": "84m"}, {"ood_ratio": 0.5}):
        assert screen._identity(replace(SETTINGS, **change)) != earlier
