import dataclasses
import gzip
import json
import re

import pytest
import yaml

from jobs import encode, evaluate, split, train
from jobs.cli import main
from pipeline.config import EncodeSettings, EvaluateSettings, SplitSettings, TrainSettings
from tests.commands import assert_one_line

COMMANDS = {
    "encode": (EncodeSettings, encode.encode),
    "train": (TrainSettings, train.train),
    "evaluate": (EvaluateSettings, evaluate.evaluate),
    "split": (SplitSettings, split.split),
}


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Run a command in an empty folder; gives its exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(job: str, *argv: str) -> tuple[int, str, str]:
        settings_class, work = COMMANDS[job]
        code = main(settings_class, work, job, list(argv))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.mark.parametrize(
    ("job", "argv", "part"),
    [
        ("encode", ["--data_file", "s4://b/m.csv"], "s4"),
        ("train", ["--data_file", "m.smi", "--batch_size", "0"], "--batch_size"),
        ("train", ["--data_file", "m.smi", "--epochs", "many"], "--epochs"),
        ("train", ["--data_file", "m.smi", "--lr", "-1"], "--lr must be above 0"),
        ("train", ["--data_file", "m.smi", "--dropout", "1.5"], "--dropout must be below 1"),
        ("train", ["--data_file", "absent.json"], "no such file"),
        ("evaluate", [], "--checkpoint"),
        ("evaluate", ["--checkpoint", "absent"], "absent"),
        ("split", ["--data_file", "m.smi", "--output", "out.txt"], ".json"),
        ("split", ["--data_file", "m.smi", "--output", "o.json", "--by", "column"], "--column"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(run, job, argv, part):
    code, _, err = run(job, *argv)
    assert_one_line(code, err, job, part)


@pytest.mark.parametrize(
    ("content", "part"),
    [({"nope": 1}, "unknown setting 'nope'"), ({"epochs": "abc"}, "--epochs")],
)
def test_a_bad_key_in_the_config_file_is_named(run, tmp_path, content, part):
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(content))
    code, _, err = run("train", "--config", "c.yaml", "--data_file", "m.smi")
    assert_one_line(code, err, "train", part)


@pytest.mark.parametrize("content", ["", "smiles\n"])
def test_a_table_without_rows_is_an_error(run, tmp_path, content):
    (tmp_path / "m.csv").write_text(content)
    code, _, err = run("encode", "--data_file", "m.csv", "--weights", "untrained")
    assert_one_line(code, err, "encode", "m.csv")


def test_a_checkpoint_that_does_not_fit_is_told_before_any_work(run, tmp_path):
    (tmp_path / "m.smi").write_text("CCO\n")
    (tmp_path / "w.pt").write_bytes(b"no checkpoint")
    code, _, err = run("encode", "--data_file", "m.smi", "--weights", "w.pt")
    assert_one_line(code, err, "encode", "w.pt: not a torch checkpoint")


def split_file(folder, **splits: list[str]) -> str:
    names = ("train", "iid_val", "iid_test", "ood_val", "ood_test")
    items = {name: [{"smiles": s} for s in splits.get(name, [])] for name in names}
    path = folder / "split.json.gz"
    path.write_bytes(gzip.compress(json.dumps({"split": items}).encode()))
    return str(path)


DISTINCT = {
    "train": ["CC", "CCC"],
    "iid_val": ["CO"],
    "iid_test": ["CN"],
    "ood_val": ["c1ccccc1", "c1ccncc1"],
    "ood_test": ["C1CC1"],
}


def test_an_empty_split_is_an_error(run, ray_session, tmp_path):
    path = split_file(tmp_path, **{**DISTINCT, "ood_test": []})
    code, _, err = run("train", "--data_file", path, "--weights", "untrained")
    assert code == 2
    assert err.strip().splitlines()[-1].startswith("jobs.train: error: ")
    assert "the split ood_test is empty" in err


def test_a_molecule_in_two_splits_is_an_error_that_shows_it(run, ray_session, tmp_path):
    path = split_file(tmp_path, **{**DISTINCT, "ood_test": ["OC", "C1CC1"]})
    code, _, err = run("train", "--data_file", path, "--weights", "untrained")
    assert code == 2
    assert "1 molecules are in more than one split: CO in iid_val and ood_test" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("job", COMMANDS)
def test_help_shows_every_setting(run, capsys, job):
    with pytest.raises(SystemExit) as exit_:
        run(job, "--help")
    assert exit_.value.code == 0
    shown = capsys.readouterr().out
    for field in dataclasses.fields(COMMANDS[job][0]):
        assert re.search(rf"--{field.name}\b", shown), field.name


def test_interruption_exits_130_and_says_how_to_go_on(capsys):
    def interrupted(settings):
        raise KeyboardInterrupt

    code = main(EncodeSettings, interrupted, "encode", ["--data_file", "m.smi"])
    assert code == 130
    assert "the same command continues" in capsys.readouterr().err
