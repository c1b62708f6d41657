"""Clusters of sequences by identity: MMseqs2's easy-cluster (Steinegger and Söding, 2017)."""

from __future__ import annotations

import csv
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from pipeline.runtime.errors import InputError
from pipeline.runtime.nodes.machine import usable_cores

EXECUTABLE = "mmseqs"
# MMseqs2's own values suit proteins. Peptides need short words without gaps, and many like them,
# no masking of what is low in complexity, since that is most of some, and larger E-values: of ten
# residues even a copy has one near 1. Identity and coverage decide.
FOR_PEPTIDES = (
    "--spaced-kmer-mode", "0", "-k", "5", "--mask", "0", "--comp-bias-corr", "0", "-e", "10",
    "-s", "7.5",
)  # fmt: skip
# Whatever is linked by an alignment is in one cluster, so that alignments cross no border.
CONNECTED = ("--cluster-mode", "1", "--single-step-clustering", "1")


def is_there() -> bool:
    """Whether MMseqs2 is on the PATH."""
    return shutil.which(EXECUTABLE) is not None


def identity_clusters(sequences: Sequence[str], identity: float, coverage: float) -> np.ndarray:
    """The number of each sequence's cluster, int (n,), counted from 0 by first members.

    Two sequences share a cluster if a chain of alignments links them, each with at least that
    share of identical residues (`--min-seq-id`) over at least that share of both sequences (`-c`,
    `--cov-mode 0`). One that MMseqs2 aligns with no other, as those of fewer than five residues,
    is a cluster of its own.

    Raises
    ------
    InputError
        If MMseqs2 is not there, or ends with an error.
    """
    if not is_there():
        raise InputError(
            f"{EXECUTABLE} is not on the PATH; install MMseqs2 (Debian: apt-get install mmseqs2, "
            "conda: bioconda::mmseqs2)"
        )
    with TemporaryDirectory(prefix="molsieve-") as name:
        folder = Path(name)
        records = (f">{row}\n{sequence}\n" for row, sequence in enumerate(sequences))
        (folder / "all.fasta").write_text("".join(records))
        command = [
            EXECUTABLE, "easy-cluster", "all.fasta", "found", "work", *FOR_PEPTIDES, *CONNECTED,
            "--min-seq-id", str(identity), "-c", str(coverage), "--cov-mode", "0",
            "--threads", str(usable_cores()), "-v", "1",
        ]  # fmt: skip
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if done.returncode:
            lines = (done.stderr or done.stdout).strip().splitlines()
            raise InputError(f"{EXECUTABLE} ended with {done.returncode}: {' '.join(lines[-1:])}")
        with open(folder / "found_cluster.tsv", newline="") as file:
            pairs = [(int(first), int(row)) for first, row in csv.reader(file, delimiter="\t")]
    first_of = np.arange(len(sequences))
    for first, row in pairs:
        first_of[row] = first
    _, first_row, numbers = np.unique(first_of, return_index=True, return_inverse=True)
    order = np.argsort(np.argsort(first_row))
    return order[numbers]
