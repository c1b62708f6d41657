"""The store's tables that one encoder's flow reads and writes, and their columns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import pyarrow as pa

from pipeline.conformers import conformer
from pipeline.encoders import SIZED, encoder_class
from pipeline.encoders.settings import EncoderSettings
from pipeline.molecules.kinds import SEQUENCE
from pipeline.runtime.errors import InputError
from pipeline.store.keyed_table import KeyedTable, Snapshot

_TEXT = pa.string()
TO_EMBED = pa.schema([("key", _TEXT), ("smiles", _TEXT)])
REJECTIONS = pa.schema([("key", _TEXT), ("smiles", _TEXT), ("stage", _TEXT), ("reason", _TEXT)])
CONFORMERS = pa.schema(
    [
        ("key", _TEXT),
        ("atoms", pa.list_(pa.uint8())),
        ("coords", pa.list_(pa.float32())),
        ("kind", _TEXT),
    ]
)
# A row on its way to the encoder: a conformer (or a SMILES alone) and what kind of structure that
# is to the encoder, or a rejection; and the core seconds that its conformer took, on which node.
# Where tasks made it, what the encoder reads (`encoders.graphs`), and the core seconds of that.
TO_ENCODE = pa.schema(
    [
        *REJECTIONS,
        *(field for field in CONFORMERS if field.name != "key"),
        ("structure", _TEXT),
        ("conformer_seconds", pa.float64()),
        ("conformer_node", _TEXT),
        ("graph", pa.large_binary()),
        ("graph_seconds", pa.float64()),
    ]
)
# The encoder's peaks up to this row, and this row's part of its batch's tokens, padding, and of the
# seconds that the encoder worked on it and waited for it.
PEAKS = ("gpu_gb", "resident_gb")
SHARES = (
    "conformer_seconds", "graph_seconds", "tokens", "padding", "busy_seconds", "waiting_seconds",
)  # fmt: skip
MEASURED = (*PEAKS, *SHARES)
NODES = ("conformer_node", "encoder_node")
OUTCOMES = pa.schema(
    [
        *REJECTIONS,
        *((name, pa.float64()) for name in MEASURED),
        *((name, _TEXT) for name in NODES),
    ]
)


def in_schema(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Rows that have some of a schema's columns in it; the others are null."""
    columns = [
        rows[field.name] if field.name in rows.column_names else pa.nulls(rows.num_rows, field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


class TrunkSpec(NamedTuple):
    """Which activations are kept: what enters layer `cut`, its pair tensor in "bf16" or "fp32"."""

    cut: int
    precision: str


@dataclass(frozen=True)
class Tables:
    """The tables, each under a key made of all that decides its rows.

    Attributes
    ----------
    identity : what decides a feature; `weights` in it is the label for reports.
    conformers, conformer_rejections : None if the encoder needs no conformers.
    trunk : None if no activations are kept.
    residues : None if features of residues are not kept.
    """

    identity: dict[str, Any]
    features: KeyedTable
    feature_rejections: KeyedTable
    conformers: KeyedTable | None
    conformer_rejections: KeyedTable | None
    trunk: KeyedTable | None = None
    residues: KeyedTable | None = None

    @property
    def takes(self) -> str:
        """The kind of molecules that the encoder takes."""
        return encoder_class(self.identity["encoder"]).takes

    @property
    def made_by_encoder(self) -> list[KeyedTable]:
        """The tables that the encoder writes, a row in each for every molecule that has any."""
        every = (self.features, self.trunk, self.residues)
        return [table for table in every if table is not None]

    @classmethod
    def of(cls, settings: EncoderSettings) -> Tables:
        """The tables that these settings lead to, without a trunk; nothing is created yet.

        Raises
        ------
        InputError
            If the encoder is not installed, its weights cannot be had or do not fit, or it has
            no sizes and one is asked for.
        """
        root = settings.cache_root
        kind = encoder_class(settings.foundation_model)
        size = {} if settings.model_size is None else {"model_size": settings.model_size}
        if size and kind.name not in SIZED:
            raise InputError(
                f"--model_size: {kind.name} has one size, only {' and '.join(SIZED)} come in "
                "several; leave it out"
            )
        identity = kind.identity(
            **size,
            weights=settings.weights,
            precision=settings.precision,
            token_order=settings.token_order,
            finetuned=settings.finetuned,
        )
        made = made_rejections = None
        if kind.needs_conformers:
            structure = conformer.identity(
                seed=settings.conformer_seed,
                hydrogens=identity["hydrogens"],
                method=settings.conformer_method,
            )
            made = KeyedTable(root, "conformers", structure)
            made_rejections = KeyedTable(root, "rejections", structure)
            identity = {**identity, "conformers": structure}
        return cls(
            identity,
            KeyedTable(root, "features", identity),
            KeyedTable(root, "rejections", identity),
            made,
            made_rejections,
        )

    def with_trunk(self, spec: TrunkSpec | None) -> Tables:
        """With the table of these activations; None leaves it out."""
        if spec is None:
            return replace(self, trunk=None)
        decides = {**self.identity, "trunk": spec._asdict()}
        return replace(self, trunk=KeyedTable(self.features.root, "trunk", decides, dense=True))

    def with_residues(self, precision: str | None) -> Tables:
        """With the table of residues' features in "float16" or "float32"; None leaves it out.

        Raises
        ------
        InputError
            If the encoder's molecules have no residues.
        """
        if precision is None:
            return replace(self, residues=None)
        if self.takes != SEQUENCE.name:
            name = self.identity["encoder"]
            raise InputError(f"--residue_features: {name} takes no sequences; leave it out")
        decides = {**self.identity, "residues": precision}
        kept = KeyedTable(self.features.root, "residues", decides, dense=True)
        return replace(self, residues=kept)

    def snapshot(self, keep: bool) -> Tables:
        """The tables as they are now; see `pipeline.store.keyed_table.Snapshot`."""
        names = ("features", "feature_rejections", "conformers", "conformer_rejections")
        tables = {name: getattr(self, name) for name in names}
        now = {name: table and Snapshot(table, keep) for name, table in tables.items()}
        return replace(self, **now)

    def __iter__(self) -> Iterator[KeyedTable]:
        every = (
            self.features, self.feature_rejections, self.conformers, self.conformer_rejections,
            self.trunk, self.residues,
        )  # fmt: skip
        return (table for table in every if table is not None)
