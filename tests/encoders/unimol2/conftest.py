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
    "num_encoder_layers": 2, "encoder_embed_dim": 48, "ffn_embedding_dim": 48,
    "num_attention_heads": 6, "encoder_attention_heads": 6, "pair_embed_dim": 32,
    "pair_hidden_dim": 8,
}  # fmt: skip


@pytest.fixture(scope="package")
def small_size():
    """Every published size is this small one."""
    module = library("models.unimolv2")
    published = module.molecule_architecture

    def architecture(model_size="84m"):
        args = published(model_size)
        args.update(SMALL)
        return args

    with mock.patch.object(module, "molecule_architecture", architecture):
        yield


@pytest.fixture(scope="package")
def checkpoint(small_size, tmp_path_factory) -> Path:
    """Every tensor random, so that none can be swapped unnoticed."""
    model = load_model(Weights(None, "untrained"), "84m")
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if "norm.weight" in name or "gaussian.mul" in name:
                tensor.uniform_(0.5, 1.5, generator=generator)
            else:
                tensor.normal_(0.0, 0.2, generator=generator)
    path = tmp_path_factory.mktemp("unimol2") / "checkpoint.pt"
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
