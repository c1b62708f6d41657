"""`--ood synthetic`: features just beyond the training set, in place of OOD molecules.

They have no fingerprint and no structure, so what measures by these cannot be trained with them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.detectors.base import Inputs
from pipeline.detectors.feature_space import FeatureSpace, Standard
from pipeline.encoding.views import DISTANCES, EncodedViews
from pipeline.generation.packages import package
from pipeline.generation.settings import ShellSettings
from pipeline.generation.shell import LEAST
from pipeline.runtime.errors import InputError
from pipeline.training.checkpoints.references import References
from pipeline.training.settings import TrainSettings

SYNTHETIC = "synthetic"
BY_FINGERPRINTS = ("tanimoto", "distance_lr")  # detectors
NO_FINGERPRINT = "synthetic OOD features have no fingerprint to measure a distance by"
FINGERPRINT_BYTES = 256


@dataclass(frozen=True)
class SyntheticOod:
    """What stands for OOD molecules.

    Attributes
    ----------
    features : by the roles ood_train and ood_val, standardised rows (n, width) float32 as
        `FeatureSpace.inputs` gives them of molecules.
    blocks : columns of each view.
    report : ready for JSON, see `pipeline.generation.synthetic`.
    """

    features: Mapping[str, np.ndarray]
    blocks: dict[str, slice]
    report: dict[str, Any]

    @cached_property
    def keys(self) -> dict[str, list[str]]:
        """By role, a key for each row: a hash of its numbers, of a molecule's key's length."""
        return {
            role: [hashlib.blake2b(row.tobytes(), digest_size=16).hexdigest() for row in rows]
            for role, rows in self.features.items()
        }

    def inputs(self, role: str) -> Inputs:
        """Rows as detectors see molecules; no fingerprint has a bit."""
        rows = self.features[role]
        bits = np.zeros((len(rows), FINGERPRINT_BYTES), np.uint8)
        return Inputs(rows, bits, np.full(len(rows), -1), self.blocks)

    def rows(self, role: str, plain: Standard | None) -> np.ndarray:
        """Rows (n, width) as an energy head takes them: as an encoder's features, or standardised.

        Parameters
        ----------
        plain : of the feature space: what the head itself standardises by.
        """
        rows = self.features[role]
        return rows if plain is None else rows * plain.scale + plain.mean


def check_synthetic(settings: TrainSettings) -> None:
    """Tell what does not go with --ood synthetic, before any work.

    Raises
    ------
    InputError
        That names the flag, or the package that is missing.
    """
    name = settings.detector or settings.loss
    if DISTANCES in settings.view_names:
        raise InputError(
            f"--views {DISTANCES} does not go with --ood synthetic: {NO_FINGERPRINT}; leave this "
            "view out"
        )
    if name in BY_FINGERPRINTS:
        raise InputError(
            f"--detector {name} does not go with --ood synthetic: {NO_FINGERPRINT}; take an energy "
            "head (dpo, bce), oe_mahalanobis or oe_knn"
        )
    for flag, wrong, needs in (
        ("finetune_encoder", settings.finetune_encoder, "OOD molecules to encode"),
        ("group_weights dro", settings.group_weights == "dro", "the domains of OOD molecules"),
    ):
        if wrong:
            raise InputError(
                f"--{flag} does not go with --ood synthetic: it needs {needs}; give some by "
                "--ood_file, or leave it out"
            )
    if settings.ood_size < LEAST:
        raise InputError(
            f"--ood_size {settings.ood_size}: with --ood synthetic at least {LEAST} are needed"
        )
    package("diffusers")


def untried(settings: TrainSettings) -> dict[str, str]:
    """Candidates of --detector auto that cannot be tried, and why."""
    return dict.fromkeys(BY_FINGERPRINTS if settings.ood == SYNTHETIC else (), NO_FINGERPRINT)


def make_synthetic(
    encoded: EncodedViews, space: FeatureSpace, settings: TrainSettings, device: str
) -> SyntheticOod:
    """Features beyond those of ID training molecules; ID validation molecules set the shell.

    Calibration molecules have no part in it, so that p-values by them hold.
    """
    from pipeline.generation.synthetic import synthetic_ood  # slow to import

    references = References(encoded.molecules, settings.data_seed)

    def inputs(molecules: pa.Table) -> Inputs:
        return space.inputs(references.described(molecules, encoded))

    known = inputs(references.molecules)
    validation = pc.equal(encoded.molecules["role"], "id_val")
    made = synthetic_ood(
        known.features, inputs(encoded.molecules.filter(validation)).features, settings.ood_size,
        ShellSettings(), settings.data_seed, settings.output_dir, device,
    )  # fmt: skip
    features = {"ood_train": made.train.features, "ood_val": made.validation.features}
    return SyntheticOod(features, known.blocks, made.report)
