"""Results of the CUDA paths against references, at tolerances that are asserted.

Errors are ‖made − expected‖ / ‖expected‖ of a molecule's feature, the largest of all molecules.
Shapes are named as in `pipeline.encoders.unimol.model`.
"""

from __future__ import annotations

import math
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import torch
from torch import Tensor

from bench.cuda.molecules import Conformer
from bench.report import markdown
from pipeline.encoders import load_encoder
from pipeline.encoders.unimol.batching import Budget, budget_for
from pipeline.encoders.unimol.engine.forward import build_engine
from pipeline.encoders.unimol.model import UniMol, UniMolConfig
from pipeline.encoders.unimol.precision import PRECISIONS
from pipeline.encoders.unimol.published_format import load_model
from pipeline.encoders.unimol.weights import MINI, resolve_weights
from tests.reference import random_model

GIB = 1024**3
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# Of the engine, by weights; and of the mean over molecules in `feature_errors`.
PUBLISHED, SMALL = "published shape", "MolSieve-Mini"
LIMITS = {
    PUBLISHED: {"fp32": 1e-5, "fp16": 2e-3, "bf16": 2e-2},
    SMALL: {"fp32": 2e-5, "fp16": 1e-2, "bf16": 8e-2},
}
LENGTHS = (
    *range(3, 67),
    *range(67, 258, 7),
    258,
    300,
    513,
)  # tokens of the longest molecule of a batch
CUT = 13
WITHIN_GB = 1.5  # of memory that a process may take besides what it has


def inputs(pad: int, longest: int) -> tuple[Tensor, Tensor]:
    """Four random molecules, three of them padded."""
    generator = torch.Generator().manual_seed(longest)
    lengths = (longest, max(3, longest - 1), max(3, longest // 2), 3)
    tokens = torch.randint(4, 30, (len(lengths), longest), generator=generator)
    coords = 3 * torch.randn(len(lengths), longest, 3, generator=generator)
    for row, length in enumerate(lengths):
        tokens[row, length:], coords[row, length:] = pad, 0
    return tokens, coords


def errors(made: Tensor, expected: Tensor) -> Tensor:
    """Relative error of each row."""
    expected = expected.double()
    return (made.double() - expected).norm(dim=-1) / expected.norm(dim=-1)


def engine_errors(molecules: list[Conformer], weights: str) -> list[str]:
    """Every length, both shapes, all precisions; the plain model in float64 is the reference."""
    cases = [(name, precision) for name in LIMITS for precision in PRECISIONS]
    # A process each: what takes long is Triton's compilation, on one core.
    with ProcessPoolExecutor(len(cases), get_context("spawn")) as pool:
        found = list(pool.map(_worst, *zip(*cases)))
    rows, wrong = [], []
    for (name, precision), (error, longest) in zip(cases, found):
        limit = LIMITS[name][precision]
        rows.append((name, precision, f"{error:.1e}", str(longest), f"{limit:.0e}"))
        if not error < limit:
            wrong.append(f"{name} {precision}: {error:.1e} at {longest} tokens")
    lines = [
        f"{len(LENGTHS)} batches of four random molecules, whose longest has {LENGTHS[0]} to "
        f"{LENGTHS[-1]} tokens.",
        "",
        *markdown(("weights", "precision", "largest error", "at tokens", "allowed"), rows),
    ]
    return told(lines, wrong)


def _model(name: str) -> UniMol:
    return load_model(resolve_weights(MINI))[0] if name == SMALL else random_model(UniMolConfig())


def _worst(name: str, precision: str) -> tuple[float, int]:
    """The largest error of a precision, and the tokens of the longest molecule there."""
    assert not torch.backends.cuda.matmul.allow_tf32, "float32 products would be in TF32"
    torch.set_num_threads(1)
    plain = _model(name).double().to(DEVICE)
    engine = build_engine(_model(name), PRECISIONS[precision], DEVICE)
    _same_on_cpu(_model(name), plain)
    found = []
    for longest in LENGTHS:
        tokens, coords = (x.to(DEVICE) for x in inputs(plain.pad, longest))
        with torch.inference_mode():
            error = errors(engine(tokens, coords), plain(tokens, coords.double()))
        found.append((error.nan_to_num(nan=math.inf).max().item(), longest))
    return max(found)


def _same_on_cpu(model: UniMol, reference: UniMol) -> None:
    """The reference itself: float64 on the CPU."""
    tokens, coords = inputs(model.pad, 24)
    with torch.inference_mode():
        here = model.double().cpu()(tokens, coords.double())
        there = reference(tokens.to(DEVICE), coords.to(DEVICE).double()).cpu()
    assert errors(there, here).max() < 1e-9


class AboveLimit(AssertionError):
    """Results that are wrong; says what was found all the same."""


def told(lines: list[str], wrong: list[str]) -> list[str]:
    """The lines; `AboveLimit` with them if something is wrong."""
    if wrong:
        raise AboveLimit("\n".join([*lines, "", f"**Above the limit:** {'; '.join(wrong[:8])}"]))
    return lines


def feature_errors(molecules: list[Conformer], weights: str) -> list[str]:
    """16 bits against float32, and float32 against the CPU, on molecules."""
    rows, wrong = [], []
    for name, given in ((PUBLISHED, weights), (SMALL, MINI)):
        made = {
            p: torch.from_numpy(
                load_encoder("unimol", weights=given, device=str(DEVICE), precision=p)
                .encode_conformers(molecules)
            )
            for p in PRECISIONS
        }  # fmt: skip
        few = molecules[:: max(1, len(molecules) // 64)]
        on_cpu = load_encoder("unimol", weights=given, device="cpu", precision="fp32")
        expected = torch.from_numpy(on_cpu.encode_conformers(few))
        pairs = [("fp32, to the CPU's", made["fp32"][:: max(1, len(molecules) // 64)], expected)]
        pairs += [(f"{p}, to fp32", made[p], made["fp32"]) for p in ("fp16", "bf16")]
        for what, these, those in pairs:
            error = errors(these, those)
            cosine = torch.cosine_similarity(these.double(), those.double()).min().item()
            rows.append((name, what, f"{error.max():.1e}", f"{error.mean():.1e}",
                         f"{1 - cosine:.1e}"))  # fmt: skip
            if not error.mean() < LIMITS[name][what.split(",")[0]]:
                wrong.append(f"{name} {what}: {error.mean():.1e} in the mean")
    header = ("weights", "features", "largest error", "mean error", "1 − smallest cosine")
    return told(markdown(header, rows), wrong)


def trunk_errors(molecules: list[Conformer], weights: str) -> list[str]:
    """`encode_with_trunk` on the GPU against the CPU, both in float32, and in bfloat16."""
    few = molecules[:: max(1, len(molecules) // 40)]
    made = {}
    for device, precision in (("cpu", "fp32"), (str(DEVICE), "fp32"), (str(DEVICE), "bf16")):
        encoder = load_encoder("unimol", weights=weights, device=device, precision=precision)
        prepared = [encoder._tokenize(*molecule) for molecule in few]
        made[device, precision] = encoder.encode_with_trunk(prepared, CUT, "fp32")
    features, trunk = made["cpu", "fp32"]
    rows, wrong = [], []
    for precision in ("fp32", "bf16"):
        theirs, their_trunk = made[str(DEVICE), precision]
        found = {
            "feature": errors(torch.from_numpy(theirs), torch.from_numpy(features)).max().item(),
            "x": max(errors(t.x.flatten(), o.x.flatten()).item()
                     for t, o in zip(their_trunk, trunk)),
            "pair": max(errors(t.pair.flatten(), o.pair.flatten()).item()
                        for t, o in zip(their_trunk, trunk)),
        }  # fmt: skip
        rows.append((precision, *(f"{error:.1e}" for error in found.values())))
        wrong += [
            f"{precision} {k} {v:.1e}" for k, v in found.items() if v > LIMITS[PUBLISHED][precision]
        ]
    lines = [f"{len(few)} molecules, cut at layer {CUT}; errors against the CPU in fp32.", ""]
    return told([*lines, *markdown(("precision", "feature", "x", "pair"), rows)], wrong)


def memory(molecules: list[Conformer], weights: str) -> list[str]:
    """A budget that is far too large on a device that is nearly full, and the usual one."""
    config, lines = UniMolConfig(), []
    for precision, dtype in PRECISIONS.items():
        budget = budget_for(DEVICE, 4096, config, dtype)
        lines.append(
            f"- budget in {precision}: {budget.tokens:,} tokens, {budget.pairs:,} pairs "
            f"({budget.pairs // 258**2:,} molecules of 258 tokens)"
        )
    encoder = load_encoder("unimol", weights=weights, device=str(DEVICE), precision="fp32")
    expected = encoder.encode_conformers(molecules)
    everything = Budget(4096, 10**9, 10**10, 10**9)
    encoder.budget = everything
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(DEVICE).total_memory
    taken = torch.cuda.memory_reserved()
    torch.cuda.set_per_process_memory_fraction((taken + WITHIN_GB * GIB) / total)
    try:
        made = encoder.encode_conformers(molecules)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    error = errors(torch.from_numpy(made), torch.from_numpy(expected)).max().item()
    assert encoder.budget != everything, "memory never ran out"
    assert error < LIMITS[PUBLISHED]["fp32"], f"features changed by {error:.1e}"
    lines.append(
        f"- with {WITHIN_GB} GiB and all molecules in one batch to start with, the budget fell to "
        f"{encoder.budget.tokens:,} tokens and {encoder.budget.pairs:,} pairs; largest difference "
        f"of a feature {error:.1e}"
    )
    encoder = load_encoder(
        "unimol", weights=weights, device=str(DEVICE), precision="bf16", encoding_batch_size=4096
    )
    largest = [max(molecules, key=lambda molecule: len(molecule[0]))] * 4096
    given = encoder.budget
    torch.cuda.reset_peak_memory_stats()
    made = encoder.encode_conformers(largest)
    assert np.isfinite(made).all() and encoder.budget == given, "the usual budget did not fit"
    lines.append(
        f"- 4,096 molecules of 258 tokens with the usual budget in bf16: at most "
        f"{torch.cuda.max_memory_allocated() / GIB:.1f} GiB of {total / GIB:.1f}, no retry"
    )
    return lines
