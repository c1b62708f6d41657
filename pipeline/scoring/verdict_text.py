"""What a screen found, as lines to read."""

from __future__ import annotations

from typing import Any


def verdict_lines(verdict: dict[str, Any]) -> list[str]:
    """The content of verdict.json in a chemist's words."""
    new = verdict["molecules"] - verdict["in_training"]
    similar = verdict["median_similarity"]
    lines = [
        f"{verdict['molecules']:,} molecules, of which {verdict['in_training']:,} are in the "
        "training set",
        f"{_part(verdict['inside'], new)} look like the training set"
        + _median(similar["inside"], "nearest training molecule: median Tanimoto {:.2f}"),
        f"{_part(verdict['outside'], new)} lie outside of it"
        + _median(similar["outside"], "median Tanimoto {:.2f}")
        + ": nothing that the model learned from is like them",
    ]
    errors = verdict.get("expected_error")
    if errors is None:
        lines.append(
            "How large errors are is not told: the training set came without --label_column"
        )
    else:
        medians = [f"{errors[kind]:.3g} {kind}" for kind in ("inside", "outside")
                   if errors[kind] is not None]  # fmt: skip
        lines += [
            f"expected error of a prediction, median: {', '.join(medians)}",
            f"trust first the fifth with expected_error up to {errors['best_fifth_up_to']:.3g}; do "
            f"not trust the fifth from {errors['worst_fifth_from']:.3g} on",
        ]
        if errors["without"]:
            lines.append(f"{errors['without']:,} molecules have no prediction of yours")
    if verdict["warning"]:
        found = verdict["warning"].rpartition(":")[0].replace("on these", "on validation")
        lines.append(f"the line between inside and outside is an easy one to draw: {found}")
    return lines


def _part(count: int, whole: int) -> str:
    return f"{count:,} ({100 * count / max(1, whole):.0f} %)"


def _median(value: float | None, form: str) -> str:
    return "" if value is None else f" ({form.format(value)})"
