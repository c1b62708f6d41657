"""Reading the model file: against ONNX Runtime, and files that are not it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.encoders.minimol.engine import Engine
from pipeline.encoders.minimol.model_file import MODEL_NAME, package_folder, read_tensors
from pipeline.encoders.minimol.weights import Weights
from pipeline.runtime.errors import InputError

CPU = torch.device("cpu")


def field(number: int, content: bytes | int) -> bytes:
    """One field of a protobuf message; sizes in two bytes, numbers below 128."""
    if isinstance(content, int):
        return bytes([number << 3, content])
    return bytes([number << 3 | 2, len(content) & 127 | 128, len(content) >> 7]) + content


def tensor(name: str, values: np.ndarray, data_type: int = 1) -> bytes:
    """A TensorProto, dims packed."""
    return (
        field(1, bytes(values.shape)) + field(2, data_type) + field(8, name.encode())
        + field(9, values.tobytes())
    )  # fmt: skip


def test_tensors_are_read_as_they_were_written(tmp_path):
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    unpacked = field(1, 2) + field(1, 1) + tensor("counts", np.array([7, -8]), 7)[4:]
    graph = field(1, b"a node") + field(5, tensor("values", values)) + field(5, unpacked)
    (tmp_path / "a.onnx").write_bytes(field(1, 10) + field(7, graph))
    found = read_tensors(tmp_path / "a.onnx")
    assert sorted(found) == ["counts", "values"]
    np.testing.assert_array_equal(found["values"], values)
    np.testing.assert_array_equal(found["counts"], [[7], [-8]])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"text",
        field(7, field(5, b"\x08\x02"))[:-1],  # cut off
        field(7, field(5, tensor("halves", np.zeros(2, np.float16), 10))),
        field(7, field(5, tensor("short", np.zeros(2, np.float32))[:-1])),
    ],
)
def test_what_cannot_be_read_is_an_input_error(tmp_path, content):
    (tmp_path / "a.onnx").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.onnx: not an ONNX file that can be read"):
        read_tensors(tmp_path / "a.onnx")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda left: left.pop("gnn.layers.3.norm_layer.bias"), r"norm_layer\.bias is not there"),
        (
            lambda left: left.update({"gnn.layers.3.norm_layer.bias": np.zeros(7)}),
            r"norm_layer\.bias has the shape \(7,\), expected the shape \(336,\)",
        ),
        (
            lambda left: left.update({"gnn.layers.16.norm_layer.bias": np.zeros(336)}),
            r"1 weights have no place here, gnn\.layers\.16",
        ),
    ],
)
def test_another_network_is_an_input_error(reference, change, message):
    weights = Weights(package_folder() / MODEL_NAME)
    change(weights._left)
    with pytest.raises(InputError, match=message):
        Engine(weights, torch.float32, CPU)
