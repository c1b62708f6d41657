"""What scoring a library costs: cores, GPUs, hours, bytes and money, from measured costs.

`python -m bench.scaling --molecules '[1e7,1e9]'` prints the tables of docs/scaling.md;
each cost is a flag (`--help`).
"""

from __future__ import annotations

from dataclasses import dataclass

from jsonargparse import auto_cli

from bench.report import markdown


@dataclass(frozen=True)
class Costs:
    """What one molecule costs; every default but the GPU's rate and the prices was measured."""

    conformer_ms: float = 28.6
    """Core milliseconds of a conformer, ETKDG and MMFF94 (bench/encode.md, MOSES)."""
    etkdg_ms: float = 25.0
    """The same by --conformer_method etkdg (215,000 molecules of MOSES, MUV and HIV)."""
    encode_core_ms: float = 14.0
    """Core milliseconds of Uni-Mol's forward pass in bf16 (bench/encode.md)."""
    gpu_molecules_per_second: float = 5000.0
    """Forward passes of one A100. ASSUMED, not measured: 11 TFLOP/s at 2.2 GFLOP a molecule."""
    conformer_bytes: float = 630.0
    """A row of the conformer table."""
    feature_bytes: float = 3100.0
    """A row of the feature table, float32, width 512."""
    score_bytes: float = 51.0
    """A row of the scores (2,000 molecules of MUV)."""


@dataclass(frozen=True)
class Prices:
    """Money; replace them by your provider's."""

    core_hour: float = 0.02
    gpu_hour: float = 2.0
    gigabyte_month: float = 0.023


@dataclass(frozen=True)
class Plan:
    """One way to score a library."""

    name: str
    core_hours: float
    gpu_hours: float
    terabytes: float
    money: float
    cores_for_a_day: float
    gpus_for_a_day: float


def plans(molecules: float, costs: Costs, prices: Prices) -> list[Plan]:
    """The ways to score so many molecules with Uni-Mol."""
    ways = {
        "CPUs alone": (costs.conformer_ms + costs.encode_core_ms, 0.0, True),
        "CPUs and GPUs": (costs.conformer_ms, 1 / costs.gpu_molecules_per_second, True),
        "the same, nothing kept": (costs.conformer_ms, 1 / costs.gpu_molecules_per_second, False),
        "the same, ETKDG alone": (costs.etkdg_ms, 1 / costs.gpu_molecules_per_second, False),
    }
    found = []
    for name, (core_ms, gpu_seconds, keep) in ways.items():
        core_hours, gpu_hours = molecules * core_ms / 3.6e6, molecules * gpu_seconds / 3600
        kept = costs.conformer_bytes + costs.feature_bytes if keep else 0.0
        terabytes = molecules * (kept + costs.score_bytes) / 1e12
        money = (
            core_hours * prices.core_hour
            + gpu_hours * prices.gpu_hour
            + 1000 * terabytes * prices.gigabyte_month
        )
        found.append(
            Plan(name, core_hours, gpu_hours, terabytes, money, core_hours / 24, gpu_hours / 24)
        )
    return found


def table(molecules: float, costs: Costs, prices: Prices) -> list[str]:
    """The plans for so many molecules, as Markdown."""
    header = (
        f"{molecules:,.0f} molecules", "core hours", "GPU hours", "TB stored",
        "money, a month of storage included", "cores for one day", "GPUs for one day",
    )  # fmt: skip
    rows = [
        [
            plan.name, f"{plan.core_hours:,.0f}", f"{plan.gpu_hours:,.1f}",
            f"{plan.terabytes:.3g}", f"{plan.money:,.0f}", f"{plan.cores_for_a_day:,.1f}",
            f"{plan.gpus_for_a_day:.2g}",
        ]
        for plan in plans(molecules, costs, prices)
    ]  # fmt: skip
    return list(markdown(header, rows))


def main(
    molecules: list[float] = [1e7, 1e9],  # noqa: B006
    costs: Costs = Costs(),  # noqa: B008
    prices: Prices = Prices(),  # noqa: B008
) -> None:
    """Print the plans for libraries of these sizes."""
    for count in molecules:
        print("\n".join([*table(count, costs, prices), ""]))


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
