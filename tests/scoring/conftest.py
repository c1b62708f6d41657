"""A checkpoint, a small library, and the library scored once."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pytest
import safetensors.torch
import torch

from pipeline.detectors.heads.energy_head import EnergyHead
from pipeline.encoding.in_store.tables import Tables
from pipeline.molecules.identity import canonicalize, molecule_key
from pipeline.scoring.run import run_scoring
from pipeline.training.checkpoints.checkpoint import MODEL, save_checkpoint
from pipeline.training.settings import TrainSettings
from tests.conftest import encoder_here
from tests.scoring.made_library import BAD_LINES, SALT, settings
from tests.scoring_here import scoring_here


@pytest.fixture(scope="package")
def home(ray_session, tmp_path_factory, small_weights, moses_smiles) -> Path:
    """A folder with a checkpoint whose head is random, and 60 rows of which three are bad."""
    folder = tmp_path_factory.mktemp("score")
    trained = TrainSettings(
        data_file="unused", weights=str(small_weights), precision="fp32", device="cpu"
    )
    tables = Tables.of(trained)
    torch.manual_seed(1)
    head = EnergyHead(64, hidden_dim=16)
    calibration = [canonicalize(s) for s in moses_smiles[100:119]]
    molecules = pa.table(
        {
            "id": [f"v{i}" for i in range(19)],
            "key": [molecule_key(s) for s in calibration],
            "smiles": calibration,
            "role": ["id_val"] * 19,
        }
    )
    config = {
        "encoder": tables.identity,
        "features_key": tables.features.key,
        "head": {"width": 64, "hidden_dim": 16, "dropout": 0.1},
        "settings": asdict(trained),
    }
    files = {MODEL: safetensors.torch.save(head.state_dict())}
    save_checkpoint(str(folder / "checkpoint"), files, config, {}, molecules)
    rows = list(moses_smiles[:60])
    rows[33] = rows[2]  # a molecule that is there twice, in chunks far apart
    rows[40] = SALT
    for place, text in BAD_LINES.items():
        rows[place] = text
    (folder / "library.smi").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="package")
def whole(home) -> dict:
    """The summary of an undisturbed run."""
    with encoder_here():
        return run_scoring(settings(home, "whole"))


@pytest.fixture
def in_this_process():
    """As `scoring_here`: for tests of what is scored; those of the flow do without."""
    with scoring_here():
        yield
