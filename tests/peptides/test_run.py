"""jobs.generate_peptides from a table of sequences to peptides, files and what it says."""

import csv
import html
import json
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from jobs import generate_peptides as job
from jobs.cli import main
from pipeline.encoders.esm import weights
from pipeline.molecules.formats import read_rows
from pipeline.molecules.settings import SourceSettings
from pipeline.peptides import activity, run
from pipeline.peptides.diffusion.generator import PeptideGenerator
from pipeline.peptides.run import run_peptides
from pipeline.peptides.settings import GeneratePeptidesSettings
from tests.peptides.conftest import NAMES, sequences_of, table_of
from tests.report.pages import page_of, text_of
from tests.tiny_esm import save_tiny_esm

FLAGS = {
    "sequence_column": "peptide", "class_column": "kind", "steps": 4, "checkpoint_every": 2,
    "width": 16, "blocks": 1, "heads": 2, "batch_residues": 256, "diffusion_steps": 20,
    "num_samples": 24, "holdout_share": 0.25, "holdout_identity": 0.93,
}  # fmt: skip


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Peptides with a class, of which some cannot be used."""
    texts, classes = sequences_of(260, 6)
    rows = [[text, NAMES[c]] for text, c in zip(texts, classes)]
    rows += [["KKLKLKKJ", "KL"], rows[1], [rows[0][0], "other"], ["ACDEFGHI", ""]]
    path = tmp_path_factory.mktemp("table") / "peptides.csv"
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([["peptide", "kind"], *rows])
    return path, rows


@pytest.fixture(scope="module")
def made(ray_session, encoder_in_process, table, tmp_path_factory):
    home = tmp_path_factory.mktemp("generate_peptides")
    (home / "esm").mkdir()
    settings = GeneratePeptidesSettings(
        **FLAGS, data_file=str(table[0]), weights=str(save_tiny_esm(home / "esm")),
        cache_root=str(home / "store"), output_dir=str(home / "out"),
    )  # fmt: skip
    return settings, run_peptides(settings), home / "out"


def test_every_row_is_accounted_for(made, table):
    _, summary, out = made
    rejected = pq.read_table(out / "rejected.parquet").to_pylist()
    assert summary["rows_in"] == len(table[1]) == summary["rows_used"] + len(rejected)
    assert summary["rejected"] == len(rejected)
    reasons = {row["sequence"]: row["reason"] for row in rejected}
    assert reasons["ACDEFGHI"] == "it has no class"
    assert reasons[table[1][0][0]].endswith("are of several classes: KL, other")
    assert reasons[table[1][1][0]].startswith("duplicate: of ")
    assert "stands for no residue" in reasons["KKLKLKKJ"]
    by_class = summary["peptides_by_class"]
    assert sum(sum(parts.values()) for parts in by_class.values()) == summary["rows_used"]
    assert all(parts["held_out"] >= 20 for parts in by_class.values())


def test_peptides_files_and_summary_agree(made):
    settings, summary, out = made
    rows = pq.read_table(out / "generated.parquet").to_pylist()
    assert json.loads((out / "peptides_summary.json").read_text()) == summary
    kept = PeptideGenerator.read(str(out / "generator")).settings
    assert summary["generator"]["noise_shift"] == kept.noise_shift > 0
    generator = PeptideGenerator.read(str(out / "generator"))
    for name, found in summary["peptides"].items():
        mine = [row for row in rows if row["class"] == name]
        assert found["peptides"] == found["valid"] == len(mine) == settings.num_samples
        assert found["different"] == len({row["sequence"] for row in mine})
        assert sum(row["repeats_another"] for row in mine) == len(mine) - found["different"]
        assert sum(row["copy_of_training"] for row in mine) == found["copies_of_training"]
        assert {str(len(row["sequence"])) for row in mine} <= set(generator.lengths[name])
    read = read_rows(SourceSettings(data_file=str(out / "generated.fasta")))
    assert read["smiles"].to_pylist() == [row["sequence"] for row in rows]
    assert read["id"].to_pylist() == [row["id"] for row in rows]
    for name in ("learning.png", "measures.png", "peptide_curves.csv"):
        assert (out / name).stat().st_size > 100


def test_all_stands_beside_three_controls_of_as_many_peptides(made):
    settings, summary, _ = made
    for name, samples in summary["measures"].items():
        assert list(samples) == [
            "generated", "held-out real", "shuffled real", "random of the composition"
        ]  # fmt: skip
        assert len({found["rows"] for found in samples.values()}) == 1
        real, mixed = samples["held-out real"], samples["shuffled real"]
        assert mixed["residue_jsd"] == pytest.approx(real["residue_jsd"])
        assert mixed["length_jsd"] == pytest.approx(real["length_jsd"])
        made_up = samples["random of the composition"]
        assert made_up["length_jsd"] == pytest.approx(samples["generated"]["length_jsd"])
        # by construction, as held-out clusters are chosen so
        assert real["novelty"] == 1, name
        assert real["nearest_identity"] < settings.holdout_identity, name
    # weights of 4 steps know little: what is generated is far from its class
    of_kl = summary["measures"]["KL"]
    assert of_kl["generated"]["residue_jsd"] > of_kl["held-out real"]["residue_jsd"]
    assert summary["nearer_than_controls"]["KL"]["pair_jsd"] is False


def test_the_page_shows_what_was_learned_and_what_peptides_are_worth(made):
    page = page_of(made[2])
    (made[2] / "report.html").unlink()
    told = html.unescape(text_of(page))
    assert "Generated peptides" in told and "Peptides drawn: " in told
    assert "learned no more than a Gaussian of each class's residues knows" in told
    assert "Class KL: generated peptides are nearer to held-out real ones than" in told
    assert page.count('role="img" aria-label="') >= 2
    for shown in ("best linear guess", "held-out real", "Pairs (JSD, bits)", "Copies of training"):
        assert shown in told


def test_a_rerun_gives_the_same_peptides_and_says_what_is_missing(
    made, tmp_path, capsys, monkeypatch
):
    settings, summary, out = made
    monkeypatch.setattr(activity, "has_macrel", lambda: False)
    monkeypatch.setattr(run, "has_macrel", lambda: False)
    job.generate_peptides(replace(settings, output_dir=str(tmp_path), classes=["KL"]))
    first, second = (
        pq.read_table(folder / "generated.parquet").to_pylist() for folder in (out, tmp_path)
    )
    assert [row["sequence"] for row in second] == [
        row["sequence"] for row in first if row["class"] == "KL"
    ]
    assert second[0]["amp_probability"] is None
    told = capsys.readouterr().out
    assert "antimicrobial, hemolytic: not made: install molsieve[macrel]" in told
    assert "no better than a Gaussian of each class's residues" in told
    assert "class KL: generated peptides are nearer to held-out real ones than" in told
    for words in ("held-out real", "shuffled real", "random of the composition", "uniqueness"):
        assert words in told
    again = json.loads((tmp_path / "peptides_summary.json").read_text())
    assert again["macrel"] == "not made: install molsieve[macrel]"
    assert "amp_probability" not in again["measures"]["KL"]["generated"]
    assert again["peptides_by_class"] == summary["peptides_by_class"]


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--classes", "AMP"], "--classes AMP: there is none of that name, but KL, other"),
        (
            ["--class_column", "sort"],
            "has no column 'sort'; it has peptide, kind. Set --class_column",
        ),
        (["--domain_column", "kind"], "--domain_column: --class_column names the classes here"),
        (["--batch_residues", "20"], "--batch_residues 20: the longest peptide is padded to 24"),
        (["--weights", "mini-protein"], "is not there; install MolSieve anew"),
        (["--split_column", "kind"], "--split_column: all rows are learned from; leave it out"),
        (["--holdout_identity", "0.05"], "--holdout_identity, so that clusters are smaller"),
    ],
)
def test_what_cannot_be_is_one_line(made, capsys, tmp_path, monkeypatch, flags, message):
    settings, _, _ = made
    monkeypatch.setattr(weights, "MINI_FOLDER", tmp_path / "mini")
    given = {
        name: getattr(settings, name) for name in (*FLAGS, "data_file", "weights", "cache_root")
    }
    words = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    code = main(
        GeneratePeptidesSettings, job.generate_peptides, "generate_peptides",
        [*words, "--output_dir", str(tmp_path), *flags],
    )  # fmt: skip
    told = capsys.readouterr().err.strip().splitlines()[-1:]
    assert code == 2 and message in told[0]
    assert told[0].startswith("jobs.generate_peptides: error: ")


def test_latents_that_do_not_fit_are_told(made, monkeypatch):
    from pipeline.peptides import latents
    from pipeline.runtime.errors import InputError

    monkeypatch.setattr(latents.ray, "cluster_resources", lambda: {"object_store_memory": 1e9})
    monkeypatch.setattr(latents.ray, "nodes", lambda: [{"Alive": True}, {"Alive": False}])
    latents.check_room(1000, 320)
    with pytest.raises(
        InputError, match=r"10,000,000 residues of 320 columns take 5.96 GiB.*--max_length"
    ):
        latents.check_room(10_000_000, 320)


@pytest.mark.parametrize("shuffle", [False, True])
def test_structures_of_some_are_learned_from(made, tmp_path, shuffle):
    settings, summary, out = made
    texts = [row["sequence"] for row in pq.read_table(out / "rejected.parquet").to_pylist()]
    texts = [text for text in sequences_of(260, 6)[0] if text not in texts]
    some = [text for place, text in enumerate(dict.fromkeys(texts)) if place % 3]
    table = table_of(tmp_path, dict.fromkeys(some))
    given = replace(
        settings, structure_table=table.uri, shuffle_structures=shuffle,
        output_dir=str(tmp_path / "out"), num_samples=20,
    )  # fmt: skip
    found = run_peptides(given)
    assert found["with_structure"] == len(some) and found["structures_shuffled"] is shuffle
    best = found["generator"]["at_best_step"]
    held_out = sum(parts["held_out"] for parts in found["peptides_by_class"].values())
    assert 0 < best["heldout_structures"] < held_out
    assert {"heldout_loss_with_structures", "heldout_loss_structures_hidden"} <= set(best)
    assert found["peptides_by_class"] == summary["peptides_by_class"]
    assert PeptideGenerator.read(str(tmp_path / "out" / "generator")).structure_columns > 0
