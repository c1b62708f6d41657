"""What jobs.pretrain calls: molecules or sequences without labels to weights of one's own."""

from __future__ import annotations

from typing import Any

from pipeline.encoders import encoder_class
from pipeline.molecules.folders import kind_of_source
from pipeline.molecules.kinds import SEQUENCE
from pipeline.pretraining.settings import PretrainSettings
from pipeline.runtime.errors import InputError


def run_pretraining(settings: PretrainSettings) -> dict[str, Any]:
    """Pretrain the model that the settings name.

    A run that was killed continues from its last checkpoint when it is started again with the
    same settings and data.

    Returns
    -------
    dict
        The content of pretraining_stats.json. In the output folder lie also the curves (CSV, PNG),
        rejected.parquet, and the weights: of a Uni-Mol model.pt, with dict.txt for unimol_tools; of
        an ESM-2 a folder `model` in Hugging Face's layout, and metrics.json.

    Raises
    ------
    InputError
        If the data file or a folder cannot be used, a package is missing, or nothing is left to
        train on.
    """
    kind, model = kind_of_source(settings), settings.foundation_model
    if (kind is SEQUENCE) != (model == "esm"):
        raise InputError(
            f"{settings.data_file} holds {kind.many}, of which --foundation_model {model} takes "
            f"none: {'esm' if kind is SEQUENCE else 'unimol'} does"
        )
    if model == "esm":
        encoder_class(model)  # tells what to install where transformers is missing
        from pipeline.pretraining.sequences.run import pretrain_on_sequences

        return pretrain_on_sequences(settings)
    from pipeline.pretraining.molecules.run import pretrain_on_molecules

    return pretrain_on_molecules(settings)
