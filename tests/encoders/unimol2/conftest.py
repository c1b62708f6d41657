"""A small Uni-Mol2 in unimol_tools' format, and its features by unimol_tools itself."""

from __future__ import annotations

from multiprocessing.pool import ThreadPool
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch

from pipeline.encoders.unimol.weights import Weights
from pipeline.encoders.unimol2.library import library
from pipeline.encoders.unimol2.model import load_model

SMALL = {
    "encoder_embed_dim": 48, "ffn_embedding_dim": 48,
    "num_attention_heads": 6, "encoder_attention_heads": 6, "pair_embed_dim": 32,
    "pair_hidden_dim": 8,
}  # fmt: skip


@pytest.fixture(scope="package")
def small_size():
    """Every published size is this small one, but that some are deeper, as in the published."""
    module = library("models.unimolv2")
    published = module.molecule_architecture

    def architecture(model_size="84m"):
        args = published(model_size)
        args.update(SMALL, num_encoder_layers=3 if model_size in ("164m", "1.1B") else 2)
        return args

    with mock.patch.object(module, "molecule_architecture", architecture):
        yield


@pytest.fixture(scope="package")
def checkpoint(small_size, tmp_path_factory) -> Path:
    return random_checkpoint("84m", tmp_path_factory.mktemp("unimol2") / "checkpoint.pt")


@pytest.fixture(scope="package")
def deeper(small_size, tmp_path_factory) -> Path:
    """A checkpoint of --model_size 164m."""
    return random_checkpoint("164m", tmp_path_factory.mktemp("unimol2") / "checkpoint.pt")


def random_checkpoint(size: str, path: Path) -> Path:
    """Every tensor random, so that none can be swapped unnoticed."""
    model = load_model(Weights(None, "untrained"), size)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if "norm.weight" in name or "gaussian.mul" in name:
                tensor.uniform_(0.5, 1.5, generator=generator)
            else:
                tensor.normal_(0.0, 0.2, generator=generator)
    torch.save({"model": model.state_dict()}, path)
    return path


def theirs(checkpoint: Path, smiles: list[str], batch_size: int = 1) -> np.ndarray:
    """Features by UniMolRepr."""
    module = library("data.conformer")
    tool = library("predictor").UniMolRepr(
        model_name="unimolv2", model_size="84m", use_cuda=False, batch_size=batch_size,
        pretrained_model_path=str(checkpoint),
    )  # fmt: skip
    with mock.patch.object(module, "Pool", ThreadPool):
        return np.stack(tool.get_repr(smiles))
