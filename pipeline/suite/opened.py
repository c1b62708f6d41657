"""A suite whose data are read: its samples, their features, and the cells that these make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.encoding.views import EncodedViews, Plans, decided, encode_views, plan_views
from pipeline.molecules.rejected import write_rejected
from pipeline.runtime.errors import DamagedFile, InputError, reason_of
from pipeline.runtime.files import result_or_error
from pipeline.suite.cells import Cell, cell_key, unmade_key
from pipeline.suite.data.data_sets import (
    DECISIVE,
    DECISIVE_OF_TESTS,
    DataSet,
    Sample,
    digest_of,
    training_settings,
)
from pipeline.suite.data.roles import tests_of
from pipeline.suite.grid import Encoder, Training
from pipeline.suite.running.schedule import Failures, Group
from pipeline.suite.settings import SuiteSettings
from pipeline.suite.sweep import Sampling


@dataclass(frozen=True)
class Features:
    """A sample's molecules encoded.

    Attributes
    ----------
    encoded : the molecules that have features, with roles.
    device : "cpu" or "cuda".
    """

    encoded: EncodedViews
    device: str

    @cached_property
    def tests(self) -> pa.Table:
        """The test molecules."""
        return tests_of(self.encoded.molecules)

    @cached_property
    def digest(self) -> str:
        """Stands for the molecules that have features."""
        return digest_of(self.encoded.molecules, DECISIVE)

    @cached_property
    def tests_digest(self) -> str:
        """Stands for the test molecules that have features."""
        return digest_of(self.tests, DECISIVE_OF_TESTS)


@dataclass(frozen=True)
class _Stored:
    """What the store has of all samples of a data set, and what making it took."""

    encoded: EncodedViews
    plans: Plans
    device: str


class Suite:
    """Samples, features and cells, each made once.

    Attributes
    ----------
    failed : why cells failed, by key.
    """

    def __init__(
        self, settings: SuiteSettings, data: Mapping[str, DataSet], encoders: Sequence[Encoder]
    ):
        self.settings, self.data = settings, dict(data)
        self.encoders = {encoder.name: encoder for encoder in encoders}
        self.output_dir = training_settings(settings).output_dir
        self.failed: Failures = {}
        self._samples: dict[tuple[str, Sampling], Sample] = {}
        self._stored: dict[tuple[str, str], _Stored | Exception] = {}
        self._features: dict[tuple[str, Sampling, str], Features | Exception] = {}

    def draw(self, samplings: Sequence[Sampling]) -> None:
        """Draw all samples, so that faults of data are told before anything is encoded.

        Raises
        ------
        InputError
            If a data set's splits are wrong, a swept ratio is reached in none, or what is swept
            changes the test molecules.
        """
        for sampling in samplings:
            drawn = [self.sample(data, sampling) for data in self.data]
            faults = [sample.fault for sample in drawn if sample.fault]
            if len(faults) == len(drawn):
                more = f" (and the like of {len(faults) - 1} others)" if faults[1:] else ""
                raise InputError(f"{faults[0]}{more}")
        for data in self.data:
            if len({self.sample(data, sampling).tests_digest for sampling in samplings}) > 1:
                names = dict.fromkeys(name for sampling in samplings for name, _ in sampling)
                raise InputError(
                    f"--sweep {' '.join(names)}: changes the test molecules of {data} too, and "
                    "variants are compared on the same ones; leave --debug_dataset_size out"
                )

    def sample(self, data: str, sampling: Sampling = ()) -> Sample:
        """The molecules of a data set with roles."""
        key = data, sampling
        if key not in self._samples:
            try:
                self._samples[key] = self.data[data].sample(dict(sampling))
            except InputError as error:
                raise InputError(f"--data {data}: {error}") from None
        return self._samples[key]

    def features(self, data: str, sampling: Sampling, encoder: str) -> Features:
        """The same encoded; what the store lacks of any sample of the data set is encoded now.

        Raises
        ------
        Exception
            Whatever ended the encoding, each time again; other encoders can go on.
        DamagedFile
            If the store is damaged.
        """
        key = data, sampling, encoder
        if key not in self._features:
            self._features[key] = result_or_error(self._encoded, *key)
        return _raised(self._features[key])

    def _encoded(self, data: str, sampling: Sampling, encoder: str) -> Features:
        of_all = data, encoder
        if of_all not in self._stored:
            self._stored[of_all] = result_or_error(self._store, *of_all)
        stored = _raised(self._stored[of_all])
        # What --retry_rejected and --force_recompute_cache ask for was done for all samples.
        plans = {name: plan.reusing() for name, plan in stored.plans.items()}
        sample, source = self.sample(data, sampling), self.data[data].source
        found = encode_views(sample.molecules, source, plans)
        took = stored.encoded.result
        result = replace(
            found.result,
            seconds=took.seconds,
            peak_gpu_memory_gb=took.peak_gpu_memory_gb,
            peak_resident_memory_gb=took.peak_resident_memory_gb,
        )
        return Features(replace(found, result=result), stored.device)

    def _store(self, data: str, encoder: str) -> _Stored:
        """Encode the molecules of all samples of a data set, and write those that cannot be."""
        each = self.data[data]
        settings = self.encoders[encoder].settings(each.settings)
        plans = plan_views(settings, settings.view_names)
        _, device = decided(settings, plans)
        samples = [sample for (name, _), sample in self._samples.items() if name == data]
        ids = pa.concat_tables([sample.molecules.select(["id"]) for sample in samples])["id"]
        every = each.source.molecules
        drawn = every.filter(pc.is_in(every["id"], ids.combine_chunks()))
        encoded = encode_views(drawn, each.source, plans)
        write_rejected(
            encoded.rejected, f"{self.output_dir}/rejected/{data}/{encoder}", kind=each.source.kind
        )
        return _Stored(encoded, plans, device)

    def tested_on(self, data: str) -> list[str]:
        """The data sets that what is trained on one is tested on: its own first."""
        others = [name for name in self.data if name != data] if self.settings.cross else []
        return [data, *others]

    def cells_of(self, training: Training) -> list[Cell]:
        """The cells of a training, one for each data set that it is tested on.

        Those that cannot be made, since molecules or features are wanting, are in `failed` then.
        """
        cells = []
        for name in self.tested_on(training.data):
            try:
                key = self._key(training, name)
            except DamagedFile:
                raise
            except Exception as error:  # whatever it is, the other cells shall go on
                key = unmade_key(training, name)
                self.failed[key] = reason_of(error)
            cells.append(Cell(key, training, name))
        return cells

    def _key(self, training: Training, test_data: str) -> str:
        fault = training.fault or self.sample(training.data, training.sample).fault
        if fault:
            raise InputError(fault)
        trained = self.features(training.data, training.sample, training.encoder)
        tested = self._tested(training.data, training.sample, training.encoder, test_data)
        identity = trained.encoded.result.identity
        return cell_key(training, identity, trained.digest, tested.tests_digest)

    def _tested(self, data: str, sampling: Sampling, encoder: str, test_data: str) -> Features:
        return self.features(test_data, sampling if test_data == data else (), encoder)

    def group(self, training: Training, cells: Sequence[Sequence[Cell]] = ()) -> Group:
        """Cells of trainings on the same features as one of them."""
        data, sampling, encoder = training.data, training.sample, training.encoder
        features = self.features(data, sampling, encoder)
        others = {}
        for name in dict.fromkeys(cell.test_data for each in cells for cell in each):
            tested = self._tested(data, sampling, encoder, name)
            others[name] = tested.tests, tested.encoded
        return Group(
            features.encoded.molecules, features.encoded, others, training.settings,
            features.device, cells,
        )  # fmt: skip


def _raised(found: Any) -> Any:
    if isinstance(found, Exception):
        raise found
    return found
