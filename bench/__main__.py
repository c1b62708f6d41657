"""Measurements that need no file of yours, one after the other, and then their pages.

`make bench` runs all of them, `python -m bench --only startup heads` some. Nothing else should
run on the machine meanwhile. Those of minimol, neighbours, score, stored, detection, trust,
augmentation and sequences need tables or a checkpoint that you name, so they are not among them:
see `python -m bench.minimol --help`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

ALONE = (
    "encode", "longest", "encode_smiles", "heads", "startup", "suite", "page", "finetune",
    "feeding", "engine", "bf16", "unimol2", "precision", "sampling", "int8", "mini", "read",
    "splits", "nodes",
)  # fmt: skip


def main() -> int:
    """Run them; what fails is told, and the others are measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=ALONE, default=list(ALONE), metavar="NAME",
                        help=", ".join(ALONE))  # fmt: skip
    names = parser.parse_args().only
    codes = {}
    for number, name in enumerate(names, 1):
        print(f"{number} of {len(names)}: python -m bench.{name}", file=sys.stderr, flush=True)
        codes[name] = subprocess.run([sys.executable, "-m", f"bench.{name}"]).returncode
    failed = [name for name, code in codes.items() if code != 0]
    for name in names:
        if name not in failed:
            print((Path(__file__).parent / f"{name}.md").read_text())
    if failed:
        print(f"failed, so their pages are those of before: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
