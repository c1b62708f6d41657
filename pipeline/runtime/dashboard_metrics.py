"""Figures for a dashboard: custom metrics, which Ray exports to Prometheus as `ray_molsieve_…`."""

from __future__ import annotations

from functools import cache

import ray
from ray.util.metrics import Counter, Gauge

COUNTERS = {
    "molecules_in": "Molecules that a run set out to handle",
    "rejected": "Molecules rejected, by stage",
    "conformers": "Conformers made",
    "conformer_busy_seconds": "Core seconds spent on conformers",
    "graph_busy_seconds": "Core seconds spent on graphs for encoders on GPUs",
    "encoded": "Molecules encoded",
    "encoder_busy_seconds": "Seconds that encoders worked",
    "encoder_waiting_seconds": "Seconds that encoders waited for molecules",
    "tokens": "Tokens computed, padding included",
    "padding": "Tokens of padding among them",
    "scored": "Rows scored",
}
GAUGES = {
    "device_memory_gb": "Most GPU memory that an encoder held, GiB",
    "resident_memory_gb": "Most resident memory that an encoder had, GiB",
    "gpu_utilisation": "GPU utilisation, percent, by NVML",
    "gpu_power_watts": "GPU power, watts, by NVML",
    "training_loss": "Mean training loss of the last epoch",
    "validation_auroc": "Validation AUROC of the last epoch",
}
TAGS = {"rejected": ("stage",)}


def count(name: str, value: float, **tags: str) -> None:
    """Add to a counter; nothing outside of Ray."""
    if value and ray.is_initialized():
        _metric(name).inc(value, tags=tags)


def show(name: str, value: float, **tags: str) -> None:
    """Set a gauge; nothing outside of Ray."""
    if ray.is_initialized():
        _metric(name).set(value, tags=tags)


@cache
def _metric(name: str) -> Counter | Gauge:
    kind, described = (Counter, COUNTERS) if name in COUNTERS else (Gauge, GAUGES)
    return kind(f"molsieve_{name}", description=described[name], tag_keys=TAGS.get(name, ()))
