"""What is said of a library's molecules: scores, p-values, nearest training molecules, errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.detectors.feature_space import Described
from pipeline.evaluation.calibration import Calibration
from pipeline.molecules.features.fingerprints import packed_fingerprints
from pipeline.molecules.features.neighbours import nearest
from pipeline.molecules.sources import FINGERPRINT
from pipeline.scoring.levels import SCORES, Levels, relevelled
from pipeline.training.checkpoints.checkpoint import Checkpoint
from pipeline.trust.in_checkpoint import KeptErrors

# Roles of the user's training set; a detector is fitted on the first.
ID_ROLES = ("id_train", "id_val", "id_cal")
OOD_ROLES = ("ood_train", "ood_val")


@dataclass(frozen=True)
class Judge:
    """All that verdicts are made from.

    Attributes
    ----------
    checkpoint : the detector, and what it was trained on.
    calibration : of the detector, and `cross` of the checkpoint's other one, if it has one.
    errors : the error model; None without labels.
    calibrated_by : the role of the molecules that calibrate.
    """

    checkpoint: Checkpoint
    calibration: Calibration
    cross: Calibration | None
    errors: KeptErrors | None
    levels: Levels
    calibrated_by: str = "id_cal"

    @cached_property
    def known(self) -> pa.Table:
        """The user's training set, as far as it has features."""
        return self.checkpoint.of_role(*ID_ROLES)

    @cached_property
    def known_bits(self) -> np.ndarray:
        """Packed fingerprints (n, w) of `known`."""
        return packed_fingerprints(self.known["smiles"].to_pylist(), self.checkpoint.kind)

    def ready(self) -> Judge:
        """This, with what is computed once and used by all actors."""
        self.known_bits  # noqa: B018
        return self

    def verdicts(self, rows: pa.Table, blocks: Mapping[str, np.ndarray], device: str) -> pa.Table:
        """A table of SCORES.

        Parameters
        ----------
        rows : n molecules, none twice: `id`, `key`, `smiles`, `structure`, and FINGERPRINT.
        blocks : each view's features (n, width).
        """
        keys = rows["key"].to_pylist()
        own = self.checkpoint.references.rows(keys)
        bits = np.frombuffer(b"".join(rows[FINGERPRINT].to_pylist()), np.uint8)
        molecules = Described(
            blocks, rows["smiles"].to_pylist(), own, bits.reshape(len(keys), -1),
            self.checkpoint.kind,
        )  # fmt: skip
        energies = self.checkpoint.scores(molecules, device)
        p_values = self.calibration.p_values(energies)
        if self.cross is not None:
            mine = np.isin(keys, self.checkpoint.of_role(*OOD_ROLES)["key"].to_pylist())
            other = self.checkpoint.cross.scores(molecules.take(mine), device)
            energies[mine], p_values[mine] = other, self.cross.p_values(other)
        found = nearest(molecules.bits, self.known_bits, 1, threads=1)
        place = pa.array(found.index[:, 0])
        columns = {
            **{name: rows[name] for name in ("id", "smiles", "structure")},
            "energy": energies,
            "p_value": p_values,
            "is_ood": pa.nulls(len(keys), pa.bool_()),
            "in_training": pc.is_in(rows["smiles"], self.known["smiles"].combine_chunks()),
            "nearest_id": self.known["id"].take(place),
            "nearest_smiles": self.known["smiles"].take(place),
            "nearest_similarity": found.similarity[:, 0],
            **self._errors(molecules, keys),
        }
        empty = {n: pa.nulls(len(keys), SCORES.field(n).type) for n in SCORES.names}
        scores = pa.table({**empty, **columns}).select(SCORES.names).cast(SCORES)
        return relevelled(scores, self.levels)

    def _errors(self, molecules: Described, keys: list[str]) -> dict[str, pa.Array]:
        if self.errors is None:
            return {}
        made = self.errors.predict(self.checkpoint.space, molecules, keys)
        names = ("prediction", "expected_error", "error_scale")
        return {name: pa.array(values, from_pandas=True) for name, values in zip(names, made)}
