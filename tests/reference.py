"""The reference: unimol_tools, unmodified, on checkpoints that both sides can read."""

from __future__ import annotations

from multiprocessing.pool import ThreadPool
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from pipeline.encoders.unimol.model import UniMol, UniMolConfig
from pipeline.encoders.unimol.published_format import PUBLISHED_SIZES, save_checkpoint
from pipeline.encoders.unimol.tokens import TOKEN_ORDERS, Vocabulary


def random_model(config: UniMolConfig | None = None, seed: int = 1) -> UniMol:
    """A Uni-Mol whose every tensor is random, so that none can be swapped unnoticed."""
    generator = torch.Generator().manual_seed(seed)
    vocabulary = Vocabulary()
    model = UniMol(config or UniMolConfig(), vocabulary.pad)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if "gbf." in name:
                tensor.uniform_(0.2, 3.0, generator=generator)
            elif "layer_norm.weight" in name:
                tensor.uniform_(0.5, 1.5, generator=generator)
            else:
                tensor.normal_(0.0, 0.04, generator=generator)
        model.embed_tokens.weight[vocabulary.pad].zero_()
    return model.eval().requires_grad_(False)


def write_dictionary(folder: Path) -> Path:
    """mol.dict.txt as published: one symbol a line, special tokens first, without [MASK]."""
    path = folder / "dict.txt"
    path.write_text("\n".join(Vocabulary().symbols[:-1]) + "\n")
    return path


def to_unimol_tools_order(source: Path, target: Path) -> Path:
    """The same model with its token rows where unimol_tools looks for them."""
    ours = Vocabulary().symbols
    theirs = Vocabulary(TOKEN_ORDERS["unimol_tools"]).symbols
    rows = torch.tensor([ours.index(symbol) for symbol in theirs])
    pairs = (rows[:, None] * len(ours) + rows[None, :]).flatten()
    checkpoint = torch.load(source, weights_only=True)
    model = checkpoint["model"]
    model["embed_tokens.weight"] = model["embed_tokens.weight"][rows]
    for name in ("gbf.mul.weight", "gbf.bias.weight"):
        model[name] = model[name][pairs]
    torch.save(checkpoint, target)
    return target


def unimol_tools_features(
    weights: Path, smiles: list[str], *, remove_hs: bool = True, batch_size: int = 32,
    config: UniMolConfig | None = None,
) -> np.ndarray:  # fmt: skip
    """Features (n, width) by unimol_tools' UniMolRepr.

    Parameters
    ----------
    config : sizes of the model, where they are not the published ones.
    """
    from unimol_tools import UniMolRepr
    from unimol_tools.data import conformer
    from unimol_tools.models import unimol

    def architecture():
        args = published()
        for ours, theirs in PUBLISHED_SIZES.items():
            setattr(args, theirs, getattr(config or UniMolConfig(), ours))
        return args

    published = unimol.molecule_architecture
    with mock.patch.object(unimol, "molecule_architecture", architecture):
        tool = UniMolRepr(
            data_type="molecule",
            remove_hs=remove_hs,
            use_cuda=False,
            batch_size=batch_size,
            pretrained_model_path=str(weights),
            pretrained_dict_path=str(weights.parent / "dict.txt"),
        )
    # Its pool of processes forks this one, which has Ray's threads: now and then one never ends.
    with mock.patch.object(conformer, "Pool", ThreadPool):
        return np.stack(tool.get_repr(smiles))


def write_checkpoints(folder: Path) -> dict[str, Path]:
    """One random model of the published shape, in both token orders."""
    official = folder / "official.pt"
    save_checkpoint(random_model(), official)
    write_dictionary(folder)
    return {
        "official": official,
        "unimol_tools": to_unimol_tools_order(official, folder / "unimol_tools.pt"),
    }
