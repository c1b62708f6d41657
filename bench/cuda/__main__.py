"""Run the checks, each by itself, and write what they found; exit code 1 if one of them failed."""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import sys
import tempfile
import time
import traceback
from pathlib import Path

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # as training has it

import torch

from bench.cuda.molecules import read
from bench.report import cpu_name
from tests.reference import write_checkpoints

# Title, module and function: molecules and the path of weights to lines of Markdown.
CHECKS = {
    "kernels": ("The engine against the plain model in float64", "right", "engine_errors"),
    "features": ("Features of the molecules", "right", "feature_errors"),
    "trunk": ("What enters a layer, on both devices", "right", "trunk_errors"),
    "attention": ("What attention takes, by its tiles", "tiles", "attention"),
    "speed": ("Molecules a second", "speed", "compare"),
    "batches": ("How many tokens a batch shall have", "speed", "batch_sizes"),
    "profile": ("Where the time goes", "speed", "profile"),
    "memory": ("When memory runs out", "right", "memory"),
    "gradients": ("Finetuning against the CPU", "training", "gradients"),
    "pretraining_steps": ("Pretraining against the CPU", "training", "pretraining_steps"),
    "finetuning": ("Finetuning's speed", "training", "finetuning"),
    "pretraining": ("Pretraining's speed", "training", "pretraining"),
    "micro_batches": ("Micro-batches of training", "microbatches", "micro_batches"),
}


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m bench.cuda")
    parser.add_argument("conformers", help="file that bench.cuda.molecules made")
    parser.add_argument("--only", nargs="+", choices=CHECKS, default=list(CHECKS))
    parser.add_argument("--output", default="cuda_checks.md", type=Path)
    arguments = parser.parse_args()
    molecules = read(arguments.conformers)
    lines = [*header(len(molecules)), ""]
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        weights = str(write_checkpoints(Path(folder))["official"])
        for name in arguments.only:
            title, module, function = CHECKS[name]
            started = time.perf_counter()
            try:
                check = getattr(importlib.import_module(f"bench.cuda.{module}"), function)
                told = check(molecules, weights)
            except AssertionError as error:
                failed.append(name)
                told = str(error).splitlines() or [traceback.format_exc()]
            except Exception:
                failed.append(name)
                told = ["```", traceback.format_exc().rstrip(), "```"]
            lines += [f"## {title}", "", *told, ""]
            arguments.output.write_text("\n".join(lines))
            print("\n".join([f"## {title}", *told]), flush=True)
            print(f"-- {name}: {time.perf_counter() - started:.1f} s\n", flush=True)
            release()
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


def header(count: int) -> list[str]:
    """What was measured, where, by which command."""
    triton = __import__("triton").__version__ if importlib.util.find_spec("triton") else "none"
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return [
        "# The CUDA paths",
        "",
        f"`python -m bench.cuda` on one {gpu} beside {cpu_name()}, Python "
        f"{platform.python_version()}, torch {torch.__version__}, triton {triton}; {count:,} "
        "molecules of the shipped samples; random weights of the published shape but where "
        "MolSieve-Mini is named.",
    ]


def release() -> None:
    """Give memory back before the next check."""
    torch._dynamo.reset()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
