"""Steps of training a second, by the padded tokens that a micro-batch must have to be enough."""

from __future__ import annotations

from dataclasses import replace
from unittest import mock

from bench.cuda.molecules import Conformer
from bench.cuda.training import (
    DEVICE,
    MOST_ATOMS,
    TRAINED,
    deterministic,
    one_worker,
    pretraining_state,
    settings_of,
    steps_a_second,
    steps_taken,
)
from bench.report import markdown, seconds_of
from pipeline.encoders.unimol import batching

ENOUGH = (1_024, 4_096, 8_192, 16_384)
STEPS = 10


def micro_batches(molecules: list[Conformer], weights: str) -> list[str]:
    """Pretraining by 128 molecules, and finetuning by 256 ID and 256 OOD ones."""
    few = [m for m in molecules if len(m[0]) <= MOST_ATOMS][-TRAINED:]
    rows = []
    for enough in ENOUGH:
        with (
            deterministic(),
            one_worker(),
            mock.patch.object(batching, "GPU_TRAINING_ENOUGH", enough),
        ):
            rates = [_pretraining(molecules, precision) for precision in ("bf16", "fp32")]
            for name, stored in (("last two layers", True), ("all layers", False)):
                settings = settings_of(weights, name)
                rates += [
                    steps_a_second(replace(settings, precision=p), few, stored)
                    for p in ("bf16", "fp32")
                ]
        rows.append((f"{enough:,}", *(f"{rate:.1f}" for rate in rates)))
        print(*rows[-1], flush=True)
    header = ["enough tokens"]
    for what in ("pretraining", "last two layers, stored", "all layers"):
        header += [f"{what}, bf16", f"{what}, fp32"]
    default = f"The default is {batching.GPU_TRAINING_ENOUGH:,}. Steps a second."
    return [default, "", *markdown(header, rows)]


def _pretraining(molecules: list[Conformer], precision: str) -> float:
    state = pretraining_state(molecules, DEVICE, 100, precision=precision, epochs=100)
    state.model.train()
    steps_taken(state, 3)
    return STEPS / seconds_of(lambda: steps_taken(state, STEPS))
