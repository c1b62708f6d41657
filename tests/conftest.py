"""Fixtures: one Ray instance a session, real molecules, small checkpoints."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from pathlib import Path

import pytest
import ray
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported: its kernels run on the CPU


from pipeline.encoders.unimol.model import UniMolConfig
from pipeline.encoders.unimol.published_format import save_checkpoint
from pipeline.encoding import graph, stored_features
from pipeline.encoding.steps import EncodeBatch
from pipeline.runtime.nodes.cluster import init_ray, start_ray
from pipeline.runtime.train import ray_train
from tests.commands import STARTED
from tests.lean_ray import start_lean
from tests.reference import random_model

DATA = Path(__file__).parent / "data"
SAMPLE = Path(__file__).parent.parent / "data" / "hiv_scaffold_sample.json.gz"
SMALL = UniMolConfig(layers=2, width=64, ffn_width=128, heads=8, gaussians=16)

start_lean()
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in a script's background; commands that
    signal.signal(signal.SIGINT, signal.default_int_handler)  # tests stop would inherit it


# Rooms whose tests take longest; two processes that begin with these end together.
LONG = (
    "cluster", "training", "encoding", "scoring", "suite", "comparison", "unimol", "finetuning",
    "pretraining",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    """The longest rooms first; the order within a room stays."""
    place = {room: number for number, room in enumerate(LONG)}
    items.sort(key=lambda item: place.get(item.path.parent.name, len(LONG)))


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_make_scheduler(config, log):
    """A room's tests share what they start, and clusters their ports: they stay in one process."""
    from xdist.scheduler import LoadScopeScheduling

    class Rooms(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return nodeid.split("::")[0].rsplit("/", 1)[0]

    return Rooms(config, log)


@pytest.fixture(scope="session")
def ray_session():
    """One local Ray for all tests; RAY_ADDRESS lets subprocesses join it."""
    os.environ["RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"] = "0"  # as start_ray does
    init_ray(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
    )
    start_ray()
    os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
    yield
    del os.environ["RAY_ADDRESS"]
    ray.shutdown()


@pytest.fixture(scope="module")
def in_process():
    """One training worker is this process also where it finetunes or pretrains.

    That saves the 8 s of Ray Train's own processes. For tests of what training leads to; tests of
    resuming, several workers and memory do without.
    """
    decide = ray_train.may_run_here
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            ray_train, "may_run_here", lambda workers, gpu, light: decide(workers, gpu, True)
        )
        yield


@contextmanager
def encoder_here():
    """The encoder works in this process, which saves the seconds that an actor's imports take."""

    def encoded_here(pending, plan, pool, run):
        pool = graph.fitted_to(pending, plan, pool)
        encoder = EncodeBatch(plan, run, pool)
        rows = graph.rows_to_encode(pending, {"plan": plan, "run": run}, pool)
        batches = rows.iter_batches(batch_size=pool.batch_size, batch_format="pyarrow")
        return ray.data.from_arrow([encoder(batch) for batch in batches])

    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stored_features, "encoding_graph", encoded_here)
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def encoder_in_process():
    """As `encoder_here`: for tests of what encoding leads to; those of the flow do without."""
    with encoder_here():
        yield


@pytest.fixture(autouse=True)
def no_job_is_left():
    """Ends the commands that a test has started and, since it failed, not waited for."""
    yield
    while STARTED:
        process = STARTED.pop()
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def hiv_smiles() -> list[str]:
    """200 molecules of the DTP AIDS antiviral screen, as written there."""
    return (DATA / "hiv.smi").read_text().split()


@pytest.fixture(scope="session")
def moses_smiles() -> list[str]:
    """200 molecules of MOSES' scaffold test set."""
    return (DATA / "moses.smi").read_text().split()


@pytest.fixture(scope="session")
def peptides() -> dict[str, str]:
    """60 peptides of 7 to 60 residues by id: half antimicrobial (AMP_), half of UniProt.

    Of modlamp's set AMP against UniProt (Müller et al., 2017; BSD-3-Clause).
    """
    lines = (DATA / "peptides.fasta").read_text().split()
    return dict(zip((name[1:] for name in lines[::3]), lines[2::3]))


@pytest.fixture(scope="session")
def small_weights(tmp_path_factory) -> Path:
    """A Uni-Mol of 2 layers in the published format, random values."""
    path = tmp_path_factory.mktemp("weights") / "small.pt"
    save_checkpoint(random_model(SMALL), path)
    return path


@pytest.fixture(scope="session")
def esm_folder(tmp_path_factory) -> Path:
    """An ESM-2 of 3 layers in Hugging Face's layout, random values."""
    from tests.tiny_esm import save_tiny_esm  # transformers is slow to import

    return save_tiny_esm(tmp_path_factory.mktemp("esm") / "tiny_esm2")
