"""Features of SMILES without Ray: those of one core, shown on terminals alone, from any script."""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pytest
import torch

from pipeline.conformers import on_all_cores
from pipeline.encoders import from_smiles, load_encoder
from pipeline.runtime.errors import RowRejected
from tests.commands import REPOSITORY


@pytest.fixture
def worth_it(monkeypatch):
    """Two child processes, however few molecules there are, and several groups."""
    monkeypatch.setattr(on_all_cores, "children_for", lambda seconds: 2)
    monkeypatch.setitem(from_smiles.TOGETHER, "cpu", 5)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_features_are_those_of_one_core_and_only_a_terminal_shows_a_bar(
    small_weights, hiv_smiles, monkeypatch, capfd
):
    encoder = load_encoder("unimol", weights=str(small_weights), device="cpu", precision="fp32")
    some = sorted(hiv_smiles, key=len)[10:22]
    expected = encoder.encode_smiles(some)
    threads = torch.get_num_threads()
    monkeypatch.setattr(on_all_cores, "children_for", lambda seconds: 2)
    monkeypatch.setitem(from_smiles.TOGETHER, "cpu", 5)
    np.testing.assert_allclose(encoder.encode_smiles(some), expected, rtol=0, atol=1e-5)
    assert capfd.readouterr().err == "" and torch.get_num_threads() == threads

    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    shuffled = np.random.default_rng(0).permutation(12)
    made = encoder.encode_smiles([some[place] for place in shuffled])
    np.testing.assert_allclose(made, expected[shuffled], rtol=0, atol=1e-5)
    assert "unimol features of 12 molecules: 100%" in terminal.getvalue()


def test_what_an_encoder_raises_comes_out(worth_it):
    def encode(places, conformers):
        raise MemoryError("no room")

    with pytest.raises(MemoryError, match="no room"):
        from_smiles.features_of_smiles(
            ["CCO"] * 12, encode, 4, hydrogens=False, device="cpu", what="features"
        )


def test_a_rejected_molecule_comes_out(worth_it):
    with pytest.raises(RowRejected, match="no atoms left"):
        from_smiles.features_of_smiles(
            ["CCO", "[H][H]"], lambda places, made: np.zeros((len(places), 4)), 4,
            hydrogens=False, device="cpu", what="features",
        )  # fmt: skip


def test_a_script_without_a_main_guard_may_call_it(small_weights):
    code = (
        "from pipeline.conformers import on_all_cores\n"
        "on_all_cores.children_for = lambda seconds: 2\n"
        "from pipeline.encoders import load_encoder\n"
        f"encoder = load_encoder('unimol', weights={str(small_weights)!r}, device='cpu')\n"
        "print(encoder.encode_smiles(['CCO'] * 20).shape)\n"
    )
    done = subprocess.run(
        [sys.executable, "-"], input=code, cwd=REPOSITORY, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("(20, 64)\n", "")
