"""P-values of test molecules: do those of a checkpoint hold on ID molecules that it never saw?"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.detectors.feature_space import Described
from pipeline.encoding.views import EncodedViews
from pipeline.evaluation.calibration import Calibration, held_out
from pipeline.runtime.errors import InputError, told
from pipeline.training.checkpoints.checkpoint import Checkpoint

ALPHA = 0.05


def p_values_of(
    checkpoint: Checkpoint, encoded: EncodedViews, is_ood: np.ndarray, energies: np.ndarray
) -> tuple[dict[str, Any], np.ndarray | None]:
    """Conformal p-values of test molecules, as jobs.score would give them.

    Nothing is encoded for them: they are made where the store has the calibration molecules'
    features, which it has after each training but that of a finetuned encoder.

    Parameters
    ----------
    encoded : the n test molecules.
    is_ood, energies : (n,).

    Returns
    -------
    dict
        `calibration_molecules`, `calibrated_by` (their role), `alpha`, and `id_share` and
        `ood_share`, the shares of test molecules with a p-value of at most that; or `not_made`,
        the reason.
    np.ndarray or None
        The p-values (n,), if they are made.
    """
    try:
        molecules, role = held_out(checkpoint)
    except InputError as error:
        return {"not_made": told(error)}, None
    keys = molecules["key"].to_pylist()
    indices = {view: made.features.index() for view, made in encoded.results.items()}
    missing = sum(any(key not in index for index in indices.values()) for key in keys)
    if missing or not keys:
        return {
            "not_made": f"the store lacks features of {missing:,} of {len(keys):,} ID molecules "
            "that calibrate"
        }, None
    blocks = {
        view: made.features.read_features(keys, indices[view])
        for view, made in encoded.results.items()
    }
    rows = checkpoint.references.rows(keys)
    shown = Described(blocks, molecules["smiles"].to_pylist(), rows, kind=checkpoint.kind)
    scores = checkpoint.scores(shown)
    p_values = Calibration(np.sort(scores)).p_values(energies)
    small = p_values <= ALPHA
    return {
        "calibration_molecules": len(keys),
        "calibrated_by": role,
        "alpha": ALPHA,
        "id_share": float(small[~is_ood].mean()),
        "ood_share": float(small[is_ood].mean()),
    }, p_values
