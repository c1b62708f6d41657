"""The table of features that a head is trained on: an encoder's own, or one written for a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.detectors.feature_space import FeatureSpace
from pipeline.encoding.views import EncodedViews
from pipeline.runtime.files import remove
from pipeline.store.keyed_table import KeyedTable, features_table, new_run_stamp
from pipeline.training.checkpoints.references import References
from pipeline.training.settings import TrainSettings
from pipeline.training.synthetic_ood import SyntheticOod

AT_ONCE = 4096  # molecules whose views are put side by side at a time
TRAINING_ROLES = ("id_train", "ood_train", "id_val", "ood_val")


@contextmanager
def written_features(
    molecules: pa.Table,
    encoded: EncodedViews,
    space: FeatureSpace,
    settings: TrainSettings,
    storage: str,
    name: str,
    synthetic: SyntheticOod | None = None,
) -> Iterator[KeyedTable]:
    """`features_to_train_on`, written for a run of some name; gone once it has ended well."""
    views = f"{storage}/{name}-views"
    yield features_to_train_on(molecules, encoded, space, views, settings.data_seed, synthetic)
    remove(views)


def features_to_train_on(
    molecules: pa.Table,
    encoded: EncodedViews,
    space: FeatureSpace,
    folder: str,
    seed: int,
    synthetic: SyntheticOod | None = None,
) -> KeyedTable:
    """The table that training reads: an encoder's own, or one of the views side by side.

    Parameters
    ----------
    folder : where the latter is written.
    seed : --data_seed.
    synthetic : stands beside the molecules, as the head takes these: an encoder's features as they
        are, or standardised.
    """
    if space.plain is not None and synthetic is None:
        return encoded.result.features
    table = KeyedTable(folder, "views", {"views": space.views})
    run = new_run_stamp()
    references = References(molecules, seed)
    molecules = molecules.filter(pc.is_in(molecules["role"], pa.array(TRAINING_ROLES)))
    for start in range(0, molecules.num_rows, AT_ONCE):
        piece = molecules.slice(start, AT_ONCE)
        keys = piece["key"].to_pylist()
        if space.plain is not None:
            features = encoded.result.features.read_features(keys)
        else:
            features = space.inputs(references.described(piece, encoded)).features
        table.write(features_table(keys, features), run)
    for role in synthetic.features if synthetic is not None else ():
        table.write(features_table(synthetic.keys[role], synthetic.rows(role, space.plain)), run)
    return table
