"""What was trained before a setting came is found again after it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace

from pipeline.scoring import screen
from pipeline.training.settings import TrainSettings
from pipeline.training.trainer import NOT_IDENTITY, training_name

CAME_LATER = ("model_size", "ood_ratio")
SETTINGS = TrainSettings(data_file="a.csv")


def earlier_settings() -> dict:
    """What an earlier version named a training by, which had not those that came later."""
    without = (*NOT_IDENTITY, *CAME_LATER)
    return {name: value for name, value in asdict(SETTINGS).items() if name not in without}


def test_names_are_those_of_before():
    content = json.dumps([earlier_settings(), {"encoder": "unimol"}], sort_keys=True)
    earlier = hashlib.blake2b(content.encode(), digest_size=10).hexdigest()
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
