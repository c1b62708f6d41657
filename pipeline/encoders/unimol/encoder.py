"""The Uni-Mol encoder: conformers of any mix of sizes in, one feature a molecule out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from pipeline.encoders.unimol.batching import max_pairs_for, pad_batch, plan_batches
from pipeline.encoders.unimol.tokens import DEFAULT_MAX_ATOMS, TokenizedMolecule, tokenize
from pipeline.encoders.unimol.weights import load_model, read_weights, resolve_weights
from pipeline.errors import RowRejected

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
CODE_VERSION = 1  # raise it when the same input would give other features


class UniMolEncoder:
    """Uni-Mol v1 on one device.

    Parameters
    ----------
    weights : see `pipeline.encoders.unimol.weights.resolve_weights`.
    device : a torch device, or "auto" for a GPU if there is one.
    precision : dtype of the matrix products: fp32, bf16 or fp16.
    encoding_batch_size : upper bound on molecules in one forward pass.
    max_pairs : upper bound on padded pairs (molecules × longest²) in one forward pass;
        None takes it from the device's free memory.
    max_atoms : larger molecules are cropped to a seeded random subset of atoms.
    token_order : see `pipeline.encoders.unimol.weights.load_model`.
    """

    name = "unimol"
    needs_conformers = True

    def __init__(
        self,
        weights: str | None = None,
        device: str = "auto",
        precision: str = "fp32",
        encoding_batch_size: int = 256,
        max_pairs: int | None = None,
        max_atoms: int = DEFAULT_MAX_ATOMS,
        token_order: str = "auto",
    ):
        if precision not in PRECISIONS:
            raise ValueError(f"precision is {precision!r}, expected one of {', '.join(PRECISIONS)}")
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(device)
        self.weights = resolve_weights(weights)
        model, self.vocabulary = load_model(self.weights, token_order)
        self.model = model.set_precision(PRECISIONS[precision]).to(self.device)
        self.dim = model.config.width
        self.encoding_batch_size = encoding_batch_size
        self.max_pairs = max_pairs or max_pairs_for(self.device)
        self.max_atoms = max_atoms

    @staticmethod
    def identity(
        weights: str | None = None,
        precision: str = "fp32",
        max_atoms: int = DEFAULT_MAX_ATOMS,
        token_order: str = "auto",
        **_: Any,
    ) -> dict[str, Any]:
        """Everything that decides the features besides the conformer, JSON-ready.

        Its `weights` entry is the label for reports. Raises InputError if the weights cannot be
        had or do not fit.
        """
        resolved = resolve_weights(weights)
        state = read_weights(resolved, token_order)
        return {
            "encoder": UniMolEncoder.name,
            "code_version": CODE_VERSION,
            "weights": resolved.label,
            "weights_sha256": resolved.sha256,
            "hydrogens": resolved.keeps_hydrogens,
            "precision": precision,
            "max_atoms": max_atoms,
            "token_order": state.token_order if state else "official",
        }

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
        `pipeline.molecules.canonicalize(smiles)`.

        Returns
        -------
        (n, dim) float32 array in the order given.

        Raises
        ------
        pipeline.errors.RowRejected
            If a SMILES does not parse or RDKit cannot place its atoms.
        """
        from pipeline.conformers import embed

        made = [embed(s, hydrogens=self.weights.keeps_hydrogens) for s in smiles]
        return self.encode_conformers([(c.atoms, c.coords) for c in made])

    def prepare(self, row: Mapping[str, Any]) -> TokenizedMolecule:
        """One row with `atoms` (N,) and flat `coords` (3N,) as this encoder's tokens.

        Raises
        ------
        pipeline.errors.RowRejected
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

    @torch.inference_mode()
    def encode_prepared(self, molecules: Sequence[TokenizedMolecule]) -> np.ndarray:
        """Features (n, dim) float32 of tokenized molecules, batched by length, in order."""
        features = np.empty((len(molecules), self.dim), dtype=np.float32)
        batches = plan_batches(
            [len(m.tokens) for m in molecules],
            max_molecules=self.encoding_batch_size,
            max_pairs=self.max_pairs,
        )
        for rows in batches:
            tokens, coords = pad_batch([molecules[i] for i in rows], self.vocabulary.pad)
            output = self.model(tokens.to(self.device), coords.to(self.device))
            features[rows] = output.float().cpu().numpy()
        return features
