"""MolSieve in a notebook, with scikit-learn's habits: fit, score, save, load.

    >>> from pipeline import Sieve
    >>> sieve = Sieve.fit(train_smiles, y=train_values)
    >>> table = sieve.score(library_smiles)
    >>> sieve.save("my_sieve"); sieve = Sieve.load("my_sieve")

It runs what jobs.train and jobs.score run, on all cores, with their progress lines.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.molecules.kinds import KINDS, SEQUENCE, SMILES, named_for
from pipeline.molecules.parsers import SequenceParser, SmilesParser
from pipeline.molecules.reading.raw_rows import RAW, raw_rows
from pipeline.molecules.rejected import REJECTED
from pipeline.molecules.sources import parse_block
from pipeline.runtime.errors import InputError
from pipeline.runtime.telemetry import configure_logging
from pipeline.scoring.levels import SCORES
from pipeline.scoring.output.output_folder import part_files, read_part
from pipeline.scoring.run import run_scoring
from pipeline.scoring.screen import screen_views
from pipeline.scoring.settings import ScoreSettings
from pipeline.scoring.steps import REJECTED_FOLDER, SCORES_FOLDER
from pipeline.training.checkpoints.checkpoint import Checkpoint, load_checkpoint
from pipeline.training.outputs import CHECKPOINT_FOLDER
from pipeline.training.settings import TrainSettings
from pipeline.training.synthetic_ood import SYNTHETIC
from pipeline.trust.training import train_and_audit

if TYPE_CHECKING:
    import pandas as pd

MOST_CHUNK, LEAST_CHUNKS = 1000, 8


class Sieve:
    """A detector, and with labels an error model, of one training set; made by `fit` or `load`.

    Attributes
    ----------
    checkpoint : what was trained.
    stats : of the training, as in training_stats.json; empty after `load`.
    """

    def __init__(self, folder: str | Path, stats: dict[str, Any], settings: dict[str, Any]):
        self._folder, self._settings = Path(folder), settings
        self._kept: TemporaryDirectory | None = None
        self.stats = stats
        self.checkpoint: Checkpoint = load_checkpoint(str(folder))

    def __repr__(self) -> str:
        views = ", ".join(self.checkpoint.space.views)
        return f"Sieve(detector={self.checkpoint.name!r}, views={views!r})"

    @classmethod
    def fit(
        cls,
        smiles: Sequence[str],
        y: Sequence[float] | None = None,
        *,
        ood: Sequence[str] | str | None = None,
        views: str | None = None,
        detector: str = "auto",
        kind: str = SMILES.name,
        **settings: Any,
    ) -> Sieve:
        """Train on a training set.

        Parameters
        ----------
        smiles : n molecules, as SMILES or as the `kind` says.
        y : (n,) measured values, or 0 and 1; NaN or None where there is none. With them an error
            model is fitted, so that `score` gives predictions, expected errors and intervals.
        ood : molecules unlike them to train with, or "synthetic", features just beyond theirs;
            default: public molecules that come with MolSieve.
        views : default: as of jobs.screen.
        kind : "smiles", or "sequence" for sequences of amino acids, which need `ood`.
        detector, **settings : as the flags of jobs.train, such as cache_root, seed, weights.

        Raises
        ------
        InputError
            If there are too few molecules or labels, or a setting is wrong.
        """
        configure_logging()
        kept = TemporaryDirectory(prefix="molsieve-")
        folder = Path(kept.name)
        columns = {"id": [str(i) for i in range(len(smiles))], kind: _texts(smiles)}
        given: dict[str, Any] = _column_of(kind)
        if y is not None:
            if len(y) != len(smiles):
                raise InputError(f"y has {len(y):,} values for {len(smiles):,} molecules")
            columns["y"] = _numbers(y)
            given["label_column"] = "y"
        pq.write_table(pa.table(columns), folder / "training.parquet")
        if isinstance(ood, str) and ood == SYNTHETIC:
            given["ood"] = SYNTHETIC
        elif ood is not None:
            pq.write_table(pa.table({kind: _texts(ood)}), folder / "ood.parquet")
            given["ood_file"] = str(folder / "ood.parquet")
        made = TrainSettings(
            id_file=str(folder / "training.parquet"), id_column="id",
            views=views or screen_views(given.get("ood"), KINDS[kind]), detector=detector,
            output_dir=str(folder), **given, **settings,
        )  # fmt: skip
        stats = train_and_audit(made)
        shared = {name: settings[name] for name in ("cache_root", "device") if name in settings}
        sieve = cls(folder / CHECKPOINT_FOLDER, stats, shared)
        sieve._kept = kept  # the folder goes with the object
        return sieve

    def score(
        self, smiles: Sequence[str], *, arrow: bool = False, **settings: Any
    ) -> pd.DataFrame | pa.Table:
        """Judge molecules.

        Parameters
        ----------
        smiles : n molecules.
        arrow : give an Arrow table in place of a pandas DataFrame.
        **settings : as the flags of jobs.score, such as alpha and interval_alpha.

        Returns
        -------
        pandas.DataFrame or pyarrow.Table
            n rows in the order given: the columns of jobs.score's scores without `id`, and
            `reason`, which says why a molecule could not be judged.
        """
        configure_logging()
        texts = _texts(smiles)
        table = self._scored(texts, settings)
        if table is None:
            table = self._all_rejected(texts)
        table = table.take(pc.sort_indices(table["id"].cast(pa.int64())))
        columns = [name for name in (*SCORES.names, "reason") if name != "id"]
        empty = {name: pa.nulls(table.num_rows, pa.string()) for name in columns}
        there = {name: table[name] for name in columns if name in table.column_names}
        table = named_for(pa.table({**empty, **there}), self.checkpoint.kind)
        return table if arrow else table.to_pandas()

    def _scored(self, smiles: pa.Array, settings: dict[str, Any]) -> pa.Table | None:
        """Scores and rejected rows, in no order; None where no row is a molecule."""
        if len(smiles) == 0:
            return None
        with TemporaryDirectory(prefix="molsieve-") as folder:
            library = f"{folder}/library.parquet"
            ids = [str(i) for i in range(len(smiles))]
            kind = self.checkpoint.kind.name
            pq.write_table(pa.table({"id": ids, kind: smiles}), library)
            chunk = max(1, min(MOST_CHUNK, -(-len(smiles) // LEAST_CHUNKS)))
            settings = {"chunk_size": chunk, **self._settings, **settings}
            wanted = ScoreSettings(
                checkpoint=str(self._folder), data_file=library, id_column="id", top=0,
                output_dir=folder, **{**_column_of(kind), **settings},
            )  # fmt: skip
            try:
                run_scoring(wanted)
            except InputError:
                if self._all_rejected(smiles)["reason"].null_count == 0:
                    return None
                raise
            return pa.concat_tables(
                [
                    *_parts(folder, SCORES_FOLDER, SCORES.names),
                    *_parts(folder, REJECTED_FOLDER, REJECTED.names),
                ],
                promote_options="default",
            )

    def _all_rejected(self, texts: pa.Array) -> pa.Table:
        """Rows with the reason why they are no molecules; null for those that are."""
        ids = [str(i) for i in range(len(texts))]
        rows = raw_rows({"id": ids, "smiles": texts}, len(ids), RAW)
        parser = SequenceParser() if self.checkpoint.kind == SEQUENCE else SmilesParser()
        return parse_block(rows, parser).select(REJECTED.names)

    def save(self, folder: str | Path) -> None:
        """Copy the checkpoint into a new folder; jobs.score reads it too. No pickle."""
        if Path(folder).exists():
            raise InputError(f"{folder} is there already; give a new folder")
        shutil.copytree(self._folder, folder)

    @classmethod
    def load(cls, folder: str | Path, **settings: Any) -> Sieve:
        """Read what `save` or jobs.train wrote.

        Parameters
        ----------
        **settings : cache_root and device, for `score`.
        """
        return cls(folder, {}, settings)


def _texts(smiles: Sequence[str]) -> pa.Array:
    """SMILES as Arrow's strings; None and NaN are missing."""
    if isinstance(smiles, str):
        raise InputError("smiles are one string; give a list of SMILES")
    if isinstance(smiles, (pa.Array, pa.ChunkedArray)):
        smiles = smiles.to_pylist()
    try:
        return pa.array(list(smiles), pa.string(), from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise InputError(f"smiles must be strings: {error}") from None


def _numbers(y: Sequence[float]) -> pa.Array:
    """Values as Arrow's numbers; None and NaN are missing."""
    if isinstance(y, (pa.Array, pa.ChunkedArray)):
        y = y.to_pylist()
    try:
        return pa.array(y, pa.float64(), from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise InputError(f"y must be numbers, one a molecule: {error}") from None


def _parts(output: str, folder: str, names: list[str]) -> list[pa.Table]:
    return [read_part(output, part, names) for part in part_files(output, folder)]


def _column_of(kind: str) -> dict[str, str]:
    """The setting that names a table's column of molecules, which is called as their kind is."""
    if kind not in KINDS:
        raise InputError(f"kind is {kind!r}; it is one of {', '.join(KINDS)}")
    return {f"{kind}_column": kind}
