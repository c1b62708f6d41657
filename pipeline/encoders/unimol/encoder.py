"""The Uni-Mol encoder: conformers of any mix of sizes in, one feature a molecule out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from pipeline.encoders.base import TokenCounts
from pipeline.encoders.from_smiles import features_of_smiles
from pipeline.encoders.unimol.batching import (
    Budget,
    batches_that_fit,
    budget_for,
    half_of,
    pad_batch,
    plan_batches,
)
from pipeline.encoders.unimol.engine.forward import build_engine, on
from pipeline.encoders.unimol.finetuning.trunk import TrunkRow
from pipeline.encoders.unimol.precision import PRECISIONS, settled
from pipeline.encoders.unimol.published_format import load_model, token_order_of
from pipeline.encoders.unimol.tokens import DEFAULT_MAX_ATOMS, TokenizedMolecule, tokenize
from pipeline.encoders.unimol.weights import resolve_weights
from pipeline.runtime.errors import RowRejected

if TYPE_CHECKING:
    from pipeline.conformers.conformer import Conformer
    from pipeline.encoders.unimol.finetuning.finetuned import FinetunedEncoder

CODE_VERSION = 2  # raise it when the same input would give other features
# See `UniMolEncoder.core_seconds`; of a small model most time goes into pairs of atoms.
SECONDS, SECONDS_A_BYTE, PUBLISHED_BYTES = 0.007, 1.2e-10, 190_000_000


def _finetuned(
    folder: str | None, weights: str | None, token_order: str
) -> tuple[FinetunedEncoder | None, str | None, str]:
    """A checkpoint's encoder; weights and token order as given, else as the checkpoint has them."""
    if folder is None:
        return None, weights, token_order
    # needs more than torch and numpy
    from pipeline.encoders.unimol.finetuning.finetuned import read_finetuned

    made = read_finetuned(folder)
    order = made.token_order if token_order == "auto" else token_order
    return made, weights or made.base_weights, order


class UniMolEncoder:
    """Uni-Mol v1 on one device.

    Parameters
    ----------
    weights : see `pipeline.encoders.unimol.weights.resolve_weights`.
    device : "cpu", "cuda", "cuda:1", ..., or "auto" for a GPU if there is one.
    precision : dtype of the matrix products: fp32, bf16, fp16, or "auto" (see
        `default_precision`); softmax, norms and the residual stream are float32, the pair
        tensor too, but for bf16 on a GPU.
    encoding_batch_size : upper bound on molecules in one forward pass.
    budget : what one forward pass may hold; None takes it from the device's free memory.
        It halves when the device runs out of memory.
    memory_share : part of the device's free memory that this encoder may take.
    max_atoms : larger molecules are cropped to a seeded random subset of atoms.
    token_order : see `pipeline.encoders.unimol.published_format.load_model`.
    finetuned : checkpoint folder of a finetuned encoder, whose layers replace those of the
        weights; None without. Without weights, those that the checkpoint names are taken.
    """

    name = "unimol"
    takes = "smiles"
    needs_conformers = True
    takes_given_structures = True
    uses_torch = True
    graph = None

    @staticmethod
    def core_seconds(weights: str | None) -> float:
        """By the size of the weights' file, on an Intel Xeon in fp32 (bench/bf16.md).

        Hydrogens double a molecule's tokens.
        """
        found = resolve_weights(weights)
        size = PUBLISHED_BYTES if found.path is None else found.path.stat().st_size
        return (SECONDS + SECONDS_A_BYTE * size) * (2 if found.keeps_hydrogens else 1)

    def __init__(
        self,
        weights: str | None = None,
        device: str = "auto",
        precision: str = "auto",
        encoding_batch_size: int = 256,
        budget: Budget | None = None,
        memory_share: float = 1.0,
        max_atoms: int = DEFAULT_MAX_ATOMS,
        token_order: str = "auto",
        finetuned: str | None = None,
    ):
        self.device, dtype = settled(device, precision)
        changed, weights, token_order = _finetuned(finetuned, weights, token_order)
        self.weights = resolve_weights(weights)
        model, self.vocabulary = load_model(self.weights, token_order)
        if changed is not None:
            changed.apply(model, self.weights.sha256)
        self.dim = model.config.width
        self.forward = build_engine(model, dtype, self.device)
        self.budget = budget or budget_for(
            self.device, encoding_batch_size, model.config, dtype, memory_share
        )
        self.max_atoms = max_atoms
        self._counts = TokenCounts()

    def take_token_counts(self) -> tuple[int, int]:
        """Tokens computed, padding included, and padding alone, since this was last asked."""
        return self._counts.take()

    @staticmethod
    def identity(
        weights: str | None = None,
        precision: str = "auto",
        max_atoms: int = DEFAULT_MAX_ATOMS,
        token_order: str = "auto",
        finetuned: str | None = None,
        **_: Any,
    ) -> dict[str, Any]:
        """Everything that decides the features besides the conformer, JSON-ready.

        Its `weights` entry is the label for reports. Raises InputError if the weights cannot be
        had or do not fit.
        """
        changed, weights, token_order = _finetuned(finetuned, weights, token_order)
        resolved = resolve_weights(weights)
        identity = {
            "encoder": UniMolEncoder.name,
            "code_version": CODE_VERSION,
            "weights": resolved.label,
            "weights_sha256": resolved.sha256,
            "hydrogens": resolved.keeps_hydrogens,
            "precision": precision,
            "max_atoms": max_atoms,
            "token_order": token_order_of(resolved, token_order),
        }
        return identity if changed is None else changed.identity_over(identity)

    def encode_conformers(
        self, conformers: Iterable[tuple[Sequence[str] | np.ndarray, np.ndarray]]
    ) -> np.ndarray:
        """Features of conformers, without RDKit.

        Parameters
        ----------
        conformers : pairs of N element symbols (or atomic numbers) and (N, 3) coordinates in
            Å; hydrogens may be among them and are dropped if the weights do without.

        Returns
        -------
        (n, dim) float32 array in the order given.

        Raises
        ------
        ValueError
            If a conformer has no atoms, a wrong shape, or coordinates that are not finite.
        """
        return self.encode_prepared([self._tokenize(atoms, xyz) for atoms, xyz in conformers])

    def encode_smiles(self, smiles: Sequence[str]) -> np.ndarray:
        """Features of SMILES, each embedded exactly as it is written (needs RDKit).

        The atom order of a SMILES decides its conformer. The jobs embed the canonical SMILES,
        so that every spelling of a molecule has one feature; for the same features here, pass
        `pipeline.molecules.identity.canonicalize(smiles)`.

        Where they are many, RDKit works in child processes on all cores, while conformers that
        are there are encoded; a terminal shows how far it is.

        Returns
        -------
        (n, dim) float32 array in the order given.

        Raises
        ------
        pipeline.runtime.errors.RowRejected
            If a SMILES does not parse or RDKit cannot place its atoms; in a child process also if
            RDKit takes more than ten minutes or 4 GiB, or crashes. A note names the SMILES. In this
            process, where they are few, RDKit has no limit.
        """

        def encode(_: Sequence[int], made: Sequence[Conformer]) -> np.ndarray:
            return self.encode_conformers([(c.atoms, c.coords) for c in made])

        return features_of_smiles(
            smiles, encode, self.dim,
            hydrogens=self.weights.keeps_hydrogens,
            device=self.device.type,
            what="unimol features",
        )  # fmt: skip

    def prepare(self, row: Mapping[str, Any]) -> TokenizedMolecule:
        """One row with `atoms` (N,) and flat `coords` (3N,) as this encoder's tokens.

        Raises
        ------
        pipeline.runtime.errors.RowRejected
            If the row has no atoms left, or shapes or values that cannot be.
        """
        atoms = np.asarray(row["atoms"], dtype=np.uint8)
        try:
            return self._tokenize(atoms, np.asarray(row["coords"], np.float32).reshape(-1, 3))
        except ValueError as error:
            raise RowRejected(str(error)) from None

    def _tokenize(self, atoms: Sequence[str] | np.ndarray, xyz: np.ndarray) -> TokenizedMolecule:
        return tokenize(
            atoms,
            xyz,
            self.vocabulary,
            keep_hydrogens=self.weights.keeps_hydrogens,
            max_atoms=self.max_atoms,
        )

    def encode_prepared(self, molecules: Sequence[TokenizedMolecule]) -> np.ndarray:
        """Features (n, dim) float32 of tokenized molecules, batched by length, in order.

        Where the device runs out of memory, the budget halves and the same molecules are tried
        again.

        Raises
        ------
        MemoryError
            If the device cannot hold even one of the molecules.
        """
        features = np.empty((len(molecules), self.dim), dtype=np.float32)
        # Only once all is under way does a GPU have to be waited for.
        for rows, output in list(self._batched(molecules, self.forward)):
            features[rows] = output.cpu().numpy()
        return features

    def encode_with_trunk(
        self, molecules: Sequence[TokenizedMolecule], cut: int, precision: str
    ) -> tuple[np.ndarray, list[TrunkRow]]:
        """Features as `encode_prepared`, and what enters layer `cut` of each molecule.

        Parameters
        ----------
        precision : that of the pair tensor, "fp32" or "bf16"; x is float32.
        """
        features = np.empty((len(molecules), self.dim), dtype=np.float32)
        trunk: list[TrunkRow] = [None] * len(molecules)
        forward = partial(self.forward.with_trunk, cut=cut, pair_dtype=PRECISIONS[precision])
        for rows, (output, x_BND, pair_BHNN) in self._batched(molecules, forward):
            features[rows] = output.cpu().numpy()
            x_BND, pair_BHNN = x_BND.cpu(), pair_BHNN.cpu()
            for place, row in enumerate(rows):
                n = len(molecules[row].tokens)
                trunk[row] = TrunkRow(x_BND[place, :n], pair_BHNN[place, :, :n, :n])
        return features, trunk

    def _batched(
        self, molecules: Sequence[TokenizedMolecule], forward: Callable[[Tensor, Tensor], Any]
    ) -> Iterator[tuple[np.ndarray, Any]]:
        """Rows of each batch and what `forward` makes of it, within what the device holds."""
        return batches_that_fit(
            [len(m.tokens) for m in molecules],
            lambda lengths: plan_batches(lengths, self.budget),
            lambda rows: self._run([molecules[i] for i in rows], forward),
            self._halve_budget,
        )

    def _run(
        self, molecules: Sequence[TokenizedMolecule], forward: Callable[[Tensor, Tensor], Any]
    ) -> Any:
        """One batch's output, on the device; a GPU may still be computing it."""
        tokens, coords = pad_batch(molecules, self.vocabulary.pad)
        if self.device.type == "cuda":
            tokens, coords = tokens.pin_memory(), coords.pin_memory()
        with on(self.device):
            output = forward(
                tokens.to(self.device, non_blocking=True),
                coords.to(self.device, non_blocking=True),
            )
        self._counts.add(tokens.numel(), int((tokens == self.vocabulary.pad).sum()))
        return output

    def _halve_budget(self, molecules: int, longest: int) -> None:
        self.budget = half_of(self.budget, self.device, molecules, longest)
