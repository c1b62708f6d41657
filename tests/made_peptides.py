"""A small set of peptides, molecules unlike them, and a library: FASTA files and a table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tests.made_sets import write_table

BAD = {"bad": "MK-LV", "short": "K"}


def families(peptides: Mapping[str, str], start: str) -> dict[str, str]:
    """Peptides whose ids begin so, and two copies of each with residues changed at random."""
    rng, letters = np.random.default_rng(5), list("ACDEFGHIKLMNPQRSTVWY")
    found = {}
    for name, text in peptides.items():
        if name.startswith(start):
            found[name] = text
            for number in range(2):
                changed = list(text)
                for place in rng.choice(len(text), 2, replace=False):
                    changed[place] = str(rng.choice(letters))
                found[f"{name}_{number}"] = "".join(changed)
    return found


def write_fasta(path: Path, sequences: Mapping[str, str]) -> Path:
    """A FASTA file."""
    path.write_text("".join(f">{name}\n{text}\n" for name, text in sequences.items()))
    return path


def write_peptides(folder: Path, peptides: Mapping[str, str]) -> Path:
    """`training.fasta` (90 like antimicrobial ones), `ood.csv` (45 of UniProt), `library.fasta`.

    The library has 22 rows: 10 of training, 10 new ones of UniProt, and BAD.
    """
    inside, outside = families(peptides, "AMP"), families(peptides, "UniProt")
    write_fasta(folder / "training.fasta", inside)
    names = list(outside)
    write_table(folder / "ood.csv", name=names[:45], seq=[outside[name] for name in names[:45]])
    known = dict(list(inside.items())[:10])
    write_fasta(folder / "library.fasta", known | {n: outside[n] for n in names[-10:]} | BAD)
    return folder
