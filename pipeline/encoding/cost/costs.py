"""What a molecule costs an encoder here, as its last long run left it in the store."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.encoding.in_store.tables import Tables
from pipeline.encoding.plan import EncodingPlan
from pipeline.runtime.files import read_record, write_atomically
from pipeline.runtime.nodes.cluster import device_name
from pipeline.store.keyed_table import KeyedTable

LEAST = 500  # molecules of a run that tells costs: below, starting workers takes most of the time
FILE = "_costs.json"


@dataclass(frozen=True)
class Costs:
    """Of one molecule.

    Attributes
    ----------
    molecules : that it was measured on.
    conformer_seconds : of a core; 0 where the file gave the structures.
    encoder_seconds : of an encoder's device.
    bytes : in the store's files.
    graph_seconds : of a core, for what an encoder on a GPU reads; 0 where it makes that itself.
    """

    molecules: int
    conformer_seconds: float
    encoder_seconds: float
    bytes: float
    graph_seconds: float = 0.0  # records of earlier versions have none

    @classmethod
    def of(cls, outcome: pa.Table, tables: Tables, given: bool = False) -> Costs | None:
        """Costs of the molecules that a run has encoded; None if it made none from the start.

        Parameters
        ----------
        outcome : OUTCOMES of the run.
        given : whether the structures are the file's, so that no conformers were to make.
        """
        encoded = outcome.filter(outcome["reason"].is_null())
        made = encoded
        if tables.conformers is not None and not given:
            made = encoded.filter(encoded["conformer_node"].is_valid())
        if made.num_rows == 0:
            return None
        # from the whole run, whose first molecules are its largest
        some = made["key"].to_pylist()[:: max(1, made.num_rows // LEAST)]
        kept = [table for table in (tables.features, tables.conformers) if table is not None]
        return cls(
            molecules=made.num_rows,
            conformer_seconds=(pc.sum(made["conformer_seconds"]).as_py() or 0.0) / made.num_rows,
            encoder_seconds=pc.sum(encoded["busy_seconds"]).as_py() / encoded.num_rows,
            bytes=sum(table.bytes_per_row(some) for table in kept),
            graph_seconds=(pc.sum(encoded["graph_seconds"]).as_py() or 0.0) / encoded.num_rows,
        )


def keep_costs(costs: Costs | None, plan: EncodingPlan, given: bool = False) -> None:
    """Leave what a run's molecules cost in the store, if they were enough to tell.

    Parameters
    ----------
    given : as of `Costs.of`; such costs lie elsewhere than those of molecules without structures.
    """
    place = _place(plan, given)
    if costs is not None and costs.molecules >= LEAST and place is not None:
        write_atomically(place, json.dumps(asdict(costs)).encode())


def costs_of(plan: EncodingPlan, given: bool = False) -> Costs | None:
    """What the last long run of this encoder on this kind of device left; None without one.

    Parameters
    ----------
    given : as of `keep_costs`.
    """
    place = _place(plan, given)
    if place is None:
        return None
    return read_record(place, Costs, "a run", "it is not used")


def _place(plan: EncodingPlan, given: bool) -> str | None:
    device = device_name(plan.device)
    if device is None:
        return None
    decides = {"features": plan.tables.features.key, "device": device}
    decides |= {"structures": "file"} if given else {}
    return f"{KeyedTable(plan.settings.cache_root, 'costs', decides).uri}/{FILE}"
