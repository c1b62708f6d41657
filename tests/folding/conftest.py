"""Real structure files, and a small ESMFold of random values."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
import torch
from transformers import EsmConfig
from transformers.models.esm.modeling_esmfold import EsmForProteinFolding

from tests.conftest import DATA

STRUCTURES = DATA / "structures"


@pytest.fixture(scope="session")
def structure_folder() -> Path:
    """Entries of the PDB; see its README."""
    return STRUCTURES


@pytest.fixture
def peptide(structure_folder) -> str:
    """5E5Z, LVHSSN, as a PDB file."""
    return gzip.decompress((structure_folder / "5e5z.pdb.gz").read_bytes()).decode()


@pytest.fixture
def fasta(tmp_path):
    """A function that writes a FASTA file of sequences, named s0, s1, ..."""

    def write(*sequences: str) -> str:
        path = tmp_path / "in.fasta"
        path.write_text("".join(f">s{i}\n{each}\n" for i, each in enumerate(sequences)))
        return str(path)

    return write


def small_config() -> EsmConfig:
    """ESMFold of one block."""
    return EsmConfig(
        vocab_size=33, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, pad_token_id=1, mask_token_id=32, position_embedding_type="rotary",
        token_dropout=True, emb_layer_norm_before=False, is_folding_model=True,
        esmfold_config={
            "fp16_esm": True,  # as the published one says
            "lddt_head_hid_dim": 8,
            "trunk": {
                "num_blocks": 1, "sequence_state_dim": 32, "pairwise_state_dim": 16,
                "sequence_head_width": 8, "pairwise_head_width": 8, "max_recycles": 2,
                "structure_module": {
                    "sequence_dim": 32, "pairwise_dim": 16, "ipa_dim": 4, "resnet_dim": 8,
                    "num_heads_ipa": 2, "num_qk_points": 2, "num_v_points": 2, "num_blocks": 2,
                },
            },
        },
    )  # fmt: skip


@pytest.fixture(scope="session")
def small_esmfold(tmp_path_factory) -> Path:
    """Its folder in Hugging Face's layout; every matrix random, so that none can be swapped."""
    model = EsmForProteinFolding(small_config()).float()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.15, generator=generator)
    folder = tmp_path_factory.mktemp("esmfold")
    model.save_pretrained(folder)
    return folder
