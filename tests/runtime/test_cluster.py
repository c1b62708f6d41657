"""What Ray Data says of short runs."""

import warnings

import pyarrow as pa
import ray.data

from pipeline.runtime.nodes.cluster import configure_data


class Same:
    """An actor that needs no imports."""

    def __call__(self, batch: pa.Table) -> pa.Table:
        return batch


def test_nobody_is_warned_of_more_encoders_than_batches(ray_session):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        configure_data()
        few = ray.data.from_items([1], override_num_blocks=1).map_batches(
            Same, batch_format="pyarrow", num_cpus=0,
            compute=ray.data.ActorPoolStrategy(min_size=2, max_size=2),
        )  # fmt: skip
        assert few.count() == 1
    assert [each for each in found if each.category is UserWarning] == []
