"""jobs.fold: sequences in, structures in the store, every row accounted for."""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from jobs import fold as job
from jobs.cli import main
from pipeline.folding.esmfold import flow, model
from pipeline.folding.esmfold.flow import ByEsmFold, FoldBatch, folding_pool, longest_first
from pipeline.folding.esmfold.model import EsmFold
from pipeline.folding.features import COLUMNS, backbone_features
from pipeline.folding.files import flow as files_flow
from pipeline.folding.run import REJECTED_FILE, SUMMARY, run_folding
from pipeline.folding.settings import FoldSettings
from pipeline.folding.tables import opened, structure_features
from pipeline.molecules.sequences import sequence_key
from pipeline.runtime.errors import InputError, RowRejected
from pipeline.store.bounded import BoundedTable
from tests.conftest import DATA
from tests.folding.test_structure_files import CRO

SEQUENCES = ["MKTAYIAKQR", "ACDEFGHIKLMNPQRSTVWY", "GGSGG", "WHM", "LVHSSN"]


@pytest.fixture(scope="module", autouse=True)
def _ray(ray_session):
    yield


@contextmanager
def here():
    """ESMFold works in this process, which saves the seconds that an actor's imports take."""

    def outcomes(self, todo, run):
        batch = FoldBatch(self, run, folding_pool(self))
        yield from map(batch, longest_first(todo, 2))

    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ByEsmFold, "outcomes", outcomes)
        yield patch
    torch.set_num_threads(threads)


@pytest.fixture
def by_esmfold(small_esmfold, tmp_path):
    def settings(data_file: str, **more) -> FoldSettings:
        return FoldSettings(
            data_file=data_file, structure_weights=str(small_esmfold), precision="fp32",
            cache_root=str(tmp_path / "store"), output_dir=str(tmp_path / "out"), **more,
        )  # fmt: skip

    return settings


def test_structures_are_made_by_ray_actors_and_found_again(by_esmfold, fasta, small_esmfold):
    settings = by_esmfold(fasta(*SEQUENCES, "GGSGG", "MK1"))
    summary = run_folding(settings)
    assert (summary["rows_in"], summary["rows_out"], summary["rejected"]) == (7, 6, 1)
    assert (summary["made"], summary["found_in_store"]) == (5, 0)
    assert summary["residues"] == sum(map(len, SEQUENCES))
    rejected = pq.read_table(f"{settings.output_dir}/{REJECTED_FILE}.parquet").to_pylist()
    assert [row["id"] for row in rejected] == ["s6"]
    table = opened(summary["structures"])
    found = structure_features(table, [sequence_key(each) for each in SEQUENCES])
    esmfold = EsmFold(flow.resolve_weights(str(small_esmfold)))
    for sequence, each in zip(SEQUENCES, found):
        ((_, (alone,)),) = esmfold.fold([sequence])
        expected = backbone_features(alone.backbone, alone.plddt)
        np.testing.assert_allclose(each.values[each.mask], expected[each.mask], atol=0.05)
        assert each.mask[:, COLUMNS.index("plddt")].all()
    with here() as patch:
        patch.setattr(EsmFold, "__init__", lambda *_: pytest.fail("the store has them all"))
        again = run_folding(settings)
    assert (again["made"], again["found_in_store"], again["structures"]) == (
        0, 5, summary["structures"],
    )  # fmt: skip
    assert json.loads(open(f"{settings.output_dir}/{SUMMARY}").read()) == again


def test_weights_that_cannot_be_loaded_are_told_in_one_line(by_esmfold, fasta, tmp_path):
    settings = by_esmfold(fasta("GGSGG"))
    folder = shutil.copytree(settings.structure_weights, tmp_path / "weights")
    (folder / "model.safetensors").write_bytes(b"x" * 99)
    with here(), pytest.raises(InputError, match="cannot be read as ESMFold") as error:
        run_folding(replace(settings, structure_weights=str(folder)))
    assert "\n" not in str(error.value)


def test_a_run_that_is_killed_continues(by_esmfold, fasta):
    settings = by_esmfold(fasta(*SEQUENCES))
    folded = EsmFold._folded

    def killed(self, sequences):
        if "WHM" in sequences:
            raise KeyboardInterrupt
        return folded(self, sequences)

    with here() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(EsmFold, "_folded", killed)
        run_folding(settings)
    with here():
        summary = run_folding(settings)
    longest = 1  # a task of its own, which was through
    assert (summary["found_in_store"], summary["made"]) == (longest, len(SEQUENCES) - longest)


def test_what_is_made_is_kept_before_its_task_ends(by_esmfold, fasta):
    settings = by_esmfold(fasta(*SEQUENCES))
    folded, kept = EsmFold._folded, []

    def one_by_one(lengths, budget):
        return [np.array([row]) for row in range(len(lengths))]

    def watched(self, sequences):
        kept.append(len(list((Path(settings.cache_root)).glob("structures/*/*.parquet"))))
        return folded(self, sequences)

    with here() as patch:
        patch.setattr(flow, "KEEP_SECONDS", 0.0)
        patch.setattr(model, "plan_batches", one_by_one)
        patch.setattr(EsmFold, "_folded", watched)
        run_folding(settings)
    assert kept == [0, 1, 2, 3, 4]


def test_what_has_no_room_is_rejected_and_tried_again(by_esmfold, fasta, caplog):
    settings = by_esmfold(fasta(*SEQUENCES))
    folded = EsmFold._folded

    def small(self, sequences):
        if max(map(len, sequences)) > 15:
            raise RuntimeError("can't allocate memory: you tried to allocate 9 bytes")
        return folded(self, sequences)

    with here() as patch:
        patch.setattr(EsmFold, "_folded", small)
        first = run_folding(settings)
    assert first["rejected_by_reason"] == {"too long for the memory of cpu": 1}
    assert first["rejected_by_stage"] == {"structure": 1} and first["made"] == 4
    assert "1 of 5 rows are rejected (20 %), mostly for: too long for the memory" in caplog.text
    with here():
        again = run_folding(settings)
    assert (again["rejected"], again["made"]) == (0, 1)


def test_what_is_not_finite_is_rejected_and_remembered(by_esmfold, fasta):
    settings = by_esmfold(fasta("GGSGG", "WHM"))
    checked = model._checked

    def refused(folded):
        return RowRejected(model.NOT_FINITE) if len(folded.plddt) == 3 else checked(folded)

    with here() as patch:
        patch.setattr(model, "_checked", refused)
        assert run_folding(settings)["rejected_by_reason"] == {model.NOT_FINITE: 1}
    with here():
        assert run_folding(settings)["rejected"] == 1
        again = run_folding(replace(settings, retry_rejected=True))
    assert (again["rejected"], again["made"]) == (0, 1)


def test_other_weights_or_recycles_are_other_structures(by_esmfold, fasta):
    with here():
        first = run_folding(by_esmfold(fasta("GGSGG")))
        other = run_folding(by_esmfold(fasta("GGSGG"), recycles=0))
    assert other["made"] == 1 and other["structures"] != first["structures"]


def test_what_is_too_long_to_be_kept_is_rejected(by_esmfold, fasta):
    with here():
        summary = run_folding(by_esmfold(fasta("GGSGG", "A" * 2049), max_length=3000))
    assert summary["rejected_by_reason"] == {"more than the 2,048 residues that can be kept": 1}
    assert summary["made"] == 1


@pytest.mark.parametrize("times", [1, 2])
def test_structures_that_other_runs_remove_are_made_again_once(by_esmfold, fasta, times):
    left = [times]

    def removed(self):
        for shard in self.shards() if left[0] else ():
            Path(shard).unlink()
        left[0] = max(0, left[0] - 1)

    settings = by_esmfold(fasta("GGSGG"))
    with here() as patch:
        patch.setattr(BoundedTable, "make_room", removed)
        if times == 1:
            summary = run_folding(settings)
            assert (summary["made"], summary["residues"]) == (1, 5)
            return
        with pytest.raises(InputError, match="--store_gb 10: structures of this run.*give more"):
            run_folding(settings)


def test_unknown_letters_and_the_mean_of_plddt_are_told(by_esmfold, fasta, capsys):
    settings = by_esmfold(fasta("MKXUA", "mka"), residues="extended")
    with here():
        job.fold(settings)
    summary = json.loads(Path(settings.output_dir, SUMMARY).read_text())
    assert summary["settled"] == {flow.UNKNOWN: 1} and summary["tidied"] == {"lower case": 1}
    printed = capsys.readouterr().out
    assert f"pLDDT      {summary['mean_plddt']:.2f} on average of 2 structures" in printed
    assert "lower case (1)" in printed


def test_structures_of_files_are_kept_and_every_row_is_told_of(
    structure_folder, fasta, tmp_path, capsys
):
    data = fasta(CRO, "LVHSSN", CRO[:-1], CRO)
    flags = {
        "data_file": data, "structures": "folder", "structure_folder": str(structure_folder),
        "cache_root": str(tmp_path / "store"), "output_dir": str(tmp_path / "out"),
    }  # fmt: skip
    argv = [word for name, value in flags.items() for word in (f"--{name}", value)]
    assert main(FoldSettings, job.fold, "fold", argv) == 0
    printed = capsys.readouterr().out
    assert "4 in = 3 with a structure + 1 rejected" in printed
    assert "1: no structure file has it, by its id or its sequence" in printed
    assert "1: residues without coordinates" in printed
    assert "2 made now, 0 found in store" in printed
    assert "files      5 read" in printed
    assert "chains     1 left out: it is no protein chain" in printed
    assert main(FoldSettings, job.fold, "fold", argv) == 0
    assert "0 made now, 2 found in store" in capsys.readouterr().out
    summary = json.loads((tmp_path / "out" / SUMMARY).read_text())
    assert summary["files"]["read"] == 5 and summary["tidied"] == {}
    assert summary["structures_with_plddt"] == 0 and summary["mean_plddt"] is None


def test_many_files_are_read_by_tasks_of_ray(structure_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(files_flow, "FEW", 0)
    settings = FoldSettings(
        data_file=str(DATA / "chains.fasta"), structures="folder",
        structure_folder=str(structure_folder),
        cache_root=str(tmp_path / "store"), output_dir=str(tmp_path / "out"),
    )  # fmt: skip
    summary = run_folding(settings)
    assert (summary["rows_in"], summary["rows_out"], summary["made"]) == (5, 4, 4)
    assert summary["residues"] == 71 + 129 + 22 + 6
    table = opened(summary["structures"])
    sources = table.read([sequence_key(CRO), sequence_key("LVHSSN")], columns=["key", "source"])
    assert sources["source"].to_pylist() == ["1orc.pdb.gz:A", "5e5z.pdb.gz:A"]


def test_rows_of_other_ids_find_the_same_structure(structure_folder, fasta, tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    for name in ("x.pdb.gz", "s0.pdb.gz"):
        (folder / name).write_bytes((structure_folder / "5e5z.pdb.gz").read_bytes())
    more = {"structures": "folder", "structure_folder": str(folder)}
    more |= {"cache_root": str(tmp_path / "store"), "output_dir": str(tmp_path / "out")}
    (tmp_path / "x.fasta").write_text(">x\nLVHSSN\n")
    for data, made in ((str(tmp_path / "x.fasta"), 1), (fasta("LVHSSN"), 0)):
        summary = run_folding(FoldSettings(data_file=data, **more))
        assert summary["made"] == made
    rows = opened(summary["structures"]).read([sequence_key("LVHSSN")])
    assert rows["source"].to_pylist() == ["s0.pdb.gz:A"]


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ({"store_gb": 1e-7}, "--store_gb 1e-07: the structures of these 2 sequences take"),
        ({"structures": "folder"}, "--structure_folder and --structures folder go together"),
        (
            {"structures": "folder", "structure_folder": "x", "recycles": 0, "device": "cpu"},
            "--structures folder: --structure_weights, --recycles, --precision, --device would",
        ),
        ({"precision": "fp16"}, "--precision fp16: ESMFold overflows"),
        ({"structure_weights": "/nowhere"}, "--structure_weights /nowhere: no such folder"),
    ],
)
def test_wrong_settings_are_told_in_one_line(by_esmfold, fasta, flags, told):
    with pytest.raises(InputError) as error:
        settings = by_esmfold(fasta("MKTAY", "GGG"))
        run_folding(FoldSettings(**{**settings.__dict__, **flags}))
    assert told in str(error.value) and "\n" not in str(error.value)


def test_smiles_are_refused(by_esmfold, tmp_path):
    (tmp_path / "in.smi").write_text("CCO ethanol\n")
    with pytest.raises(InputError, match="holds SMILES; jobs.fold takes sequences"):
        run_folding(by_esmfold(str(tmp_path / "in.smi")))
