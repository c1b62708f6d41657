"""MolSieve: find the molecules that lie outside what a model was trained on.

Rooms are stacked along the flow; none imports from one above it (`lint-imports` checks):

    sieve                                all of it in a notebook
    report                               one page from any output folder
    suite                                grids of the runs below, their statistics and tables
    augmentation   comparison   peptides   scoring   pretraining
                                         runs and tables that users take away
    trust                                predictions + labels → expected errors
    evaluation                           checkpoint + test set → metrics
    training                             features or trunk → checkpoint
    generation                           features → generator → features
    detectors                            features → OOD scores
    folding                              sequences → structures, residue by residue
    encoding                             molecules → features, trunk (the Ray Data graph)
    encoders                             tensors in, features out; no Ray
    conformers                           SMILES → coordinates
    molecules                            files → molecules: formats, identity, splits
    store                                keyed tables, shards, checksums
    runtime                              cluster, Ray Train, files, errors, settings' base class

Where a room has them, `run.py` is what a job calls, `graph.py` the Ray Data flow as a list of
steps, `steps.py` what runs on workers, `settings.py` its settings; `__init__.py` says what comes
in, what goes out, and which file to read first.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`Sieve`, loaded when it is asked for: encoders import without Ray and RDKit."""
    if name == "Sieve":
        from pipeline.sieve import Sieve

        return Sieve
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
