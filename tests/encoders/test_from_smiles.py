"""Features of SMILES without Ray: those of one core, shown on terminals alone, from any script."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
import time

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


@pytest.fixture
def made_at_once(worth_it, monkeypatch):
    """Conformers are there as soon as they are asked for, and then comes Ctrl-C if wanted."""
    monkeypatch.setitem(from_smiles.TOGETHER, "cpu", 1)

    def use(*, interrupt: bool = False, look=lambda made: None) -> None:
        def embed_all(smiles, *_, **__):
            for place in range(len(smiles)):
                look(place)
                yield place, None
            if interrupt:
                raise KeyboardInterrupt

        monkeypatch.setattr(on_all_cores, "embed_all", embed_all)

    return use


def encoded_by(encode, molecules: int) -> np.ndarray:
    return from_smiles.features_of_smiles(
        ["CCO"] * molecules, encode, 4, hydrogens=False, device="cpu", what="features"
    )


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_who_stops_does_not_wait_for_what_is_left(made_at_once, error):
    made_at_once(interrupt=error is KeyboardInterrupt)
    begun, go_on = [], threading.Event()

    def encode(places, _):
        begun.append(places)
        if error is MemoryError and places == [0]:
            time.sleep(0.2)  # until all wait
            raise MemoryError
        go_on.wait(5)
        return np.zeros((1, 4))

    with pytest.raises(error):
        encoded_by(encode, 8)
    assert len(begun) <= 3  # one a thread is at work, and one may have failed
    go_on.set()


def test_few_groups_wait_for_the_encoder(made_at_once):
    done, waiting = [], []
    made_at_once(look=lambda made: waiting.append(made - len(done)))

    def encode(places, _):
        time.sleep(0.002)
        done.append(places)
        return np.zeros((1, 4))

    encoded_by(encode, 100)
    assert len(done) == 100 and max(waiting) <= from_smiles.WAITING * 2


def test_molecules_of_a_group_stand_in_the_order_given():
    order = np.array([3, 1, 2, 0])
    made = [(2, "c"), (3, "d"), (1, "b"), (0, "a")]
    groups = list(from_smiles._groups((each for each in made), order, 2))
    assert groups == [([1, 3], ["b", "d"]), ([0, 2], ["a", "c"])]


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
