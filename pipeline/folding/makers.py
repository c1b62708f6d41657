"""Where structures come from: what a run asks of it, and which one the settings mean."""

from __future__ import annotations

from typing import Any, Protocol

import pyarrow as pa

from pipeline.folding.settings import FoldSettings
from pipeline.runtime.errors import RowRejected
from pipeline.store.bounded import BoundedTable
from pipeline.store.keyed_table import KeyedTable


class Maker(Protocol):
    """Where structures come from.

    Attributes
    ----------
    label : what reports call it.
    table : of the store, that holds its structures.
    summary : what it adds to a run's summary.
    rejections : that holds what it could not make, and need not try again; None for nothing.
    """

    label: str
    table: BoundedTable
    rejections: KeyedTable | None
    summary: dict[str, Any]

    def sources(self, wanted: pa.Table, ids: dict[str, list[str]]) -> list[str | RowRejected]:
        """Where the structure of each wanted sequence is to come from, or why there is none.

        Parameters
        ----------
        wanted : `key`, `smiles` (the sequence).
        ids : of the rows of each key, for reasons.
        """
        ...

    def outcomes(self, todo: pa.Table, run: str):
        """Make what is to do (`key`, `smiles`, `source`), and keep it; yields OUTCOMES."""
        ...


def check_maker(settings: FoldSettings) -> None:
    """Tell before any work is done that packages, weights or files are not there: InputError."""
    if settings.structures == "folder":
        from pipeline.folding.files.flow import structure_files

        structure_files(settings.structure_folder)
        return
    from pipeline.folding.esmfold.weights import check_library, resolve_weights

    check_library()
    resolve_weights(settings.structure_weights)


def maker_of(settings: FoldSettings) -> Maker:
    """Where structures are to come from; InputError that names the flag to mend."""
    if settings.structures == "folder":
        from pipeline.folding.files.flow import FromFiles  # needs gemmi

        return FromFiles.of(settings.structure_folder, settings.cache_root, settings.store_gb)
    from pipeline.folding.esmfold.flow import ByEsmFold  # torch is slow to import

    return ByEsmFold.of(settings)
