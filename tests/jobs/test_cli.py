import dataclasses
import gzip
import json
import re
import shlex
from typing import Literal

import pytest
import yaml

from jobs import __main__ as molsieve
from jobs import encode, evaluate, split, train
from jobs.cli import main, parse
from pipeline.encoding.settings import EncodeSettings
from pipeline.evaluation.settings import EvaluateSettings
from pipeline.molecules.settings import SplitSettings
from pipeline.runtime.errors import InputError
from pipeline.runtime.settings import Settings
from pipeline.training.settings import TrainSettings
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
    assert "Unvalidated" not in shown  # as where a type's name is unknown in the settings' module


def test_interruption_exits_130_and_says_how_to_go_on(capsys):
    def interrupted(settings):
        raise KeyboardInterrupt

    code = main(EncodeSettings, interrupted, "encode", ["--data_file", "m.smi"])
    assert code == 130
    assert "the same command continues" in capsys.readouterr().err


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spelled(Settings):
    """A setting of every kind."""

    data_file: str
    """Where molecules are."""
    allow_overlap: bool = False
    """Whether to."""
    keep_encodings: bool = True
    """Whether not to."""
    seeds: list[int] = dataclasses.field(default_factory=lambda: [42])
    """Some numbers."""
    weights: str | None = "mini"
    """A name or none."""
    batch_size: int | None = 8
    """A number or none."""
    precision: Literal["auto", "bf16"] = "auto"
    """One of two."""


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        ("", "allow_overlap", False),
        ("--allow_overlap", "allow_overlap", True),
        ("--allow_overlap true", "allow_overlap", True),
        ("--allow_overlap=true", "allow_overlap", True),
        ("--allow_overlap false", "allow_overlap", False),
        ("--allow_overlap=false", "allow_overlap", False),
        ("--allow_overlap --keep_encodings", "allow_overlap", True),
        ("", "keep_encodings", True),
        ("--keep_encodings", "keep_encodings", True),
        ("--keep_encodings false", "keep_encodings", False),
        ("", "seeds", [42]),
        ("--seeds 1", "seeds", [1]),
        ("--seeds 1 2 3", "seeds", [1, 2, 3]),
        ("--seeds -1 2 --allow_overlap", "seeds", [-1, 2]),
        ("--seeds [1,2]", "seeds", [1, 2]),
        ("--seeds '[1, 2]'", "seeds", [1, 2]),
        ("--seeds=[1,2]", "seeds", [1, 2]),
        ("--seeds 1 2 --seeds 3", "seeds", [3]),
        ("--weights null", "weights", None),
        ("--weights 7", "weights", "7"),
        ("--batch_size null", "batch_size", None),
        ("--batch_size=4", "batch_size", 4),
        ("--precision bf16", "precision", "bf16"),
    ],
)
def test_every_spelling_of_a_flag(words, name, value):
    flags, required = shlex.split(words), ["--data_file", "m.smi"]
    for argv in ([*flags, *required], [*required, *flags]):
        settings = parse(Spelled, "spelled", argv)
        assert (settings.data_file, getattr(settings, name)) == ("m.smi", value)


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("--allow_overlap maybe", "--allow_overlap: Expected a bool. Got value: maybe"),
        ("--allow_overlap true more", "unrecognized arguments: more"),
        ("--seeds", "--seeds"),
        ("--seeds 1 two", "--seeds: Expected a int. Got value: two"),
        ("--seeds [[1],2]", "--seeds"),
        ("--batch_size four", "--batch_size"),
        ("--precision fp8", "--precision: Expected a Literal['auto', 'bf16']. Got value: fp8"),
        ("--no_allow_overlap", "--no_allow_overlap"),
        ("--config", "--config"),
    ],
)
def test_a_flag_of_another_kind_is_named(line, part):
    with pytest.raises(InputError) as error:
        parse(Spelled, "spelled", ["--data_file", "m.smi", *line.split()])
    assert part in str(error.value)


@pytest.mark.parametrize(
    ("content", "name", "value"),
    [
        ("allow_overlap: true", "allow_overlap", True),
        ("keep_encodings: false", "keep_encodings", False),
        ("seeds: [1, 2]", "seeds", [1, 2]),
        ("seeds:\n- 3", "seeds", [3]),
        ("weights: null", "weights", None),
        ("precision: bf16", "precision", "bf16"),
    ],
)
def test_every_kind_of_setting_in_a_file(tmp_path, content, name, value):
    (tmp_path / "c.yaml").write_text(content)
    for config in (["--config", f"{tmp_path}/c.yaml"], [f"--config={tmp_path}/c.yaml"]):
        settings = parse(Spelled, "spelled", ["--data_file", "m.smi", *config])
        assert getattr(settings, name) == value


@pytest.mark.parametrize(
    "content",
    ["seeds: 7", "seeds: null", "seeds: [one]", "batch_size: [1]", "precision: fp8",
     "allow_overlap: 1", "keep_encodings: null", "data_file: null"],
)  # fmt: skip
def test_a_setting_of_another_kind_in_a_file_is_named(tmp_path, content):
    (tmp_path / "c.yaml").write_text(content)
    with pytest.raises(InputError, match=f"^--{content.split(':')[0]}: "):
        parse(Spelled, "spelled", ["--config", f"{tmp_path}/c.yaml", "--data_file", "m.smi"])


def test_flags_win_over_files_wherever_they_stand_and_later_files_over_earlier(tmp_path):
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text("data_file: m.smi\nseeds: [1]\nallow_overlap: true\nweights: one")
    two.write_text("seeds: [2]\nbatch_size: 2")
    files, flags = [f"--config={one}", "--config", str(two)], ["--seeds", "3", "4"]
    for argv in ([*files, *flags], [*flags, *files], [files[0], *flags, *files[1:]]):
        settings = parse(Spelled, "spelled", [*argv, "--allow_overlap", "false"])
        assert settings == Spelled(data_file="m.smi", seeds=[3, 4], weights="one", batch_size=2)


def test_a_setting_that_neither_line_nor_file_gives_is_missing(tmp_path):
    (tmp_path / "c.yaml").write_text("seeds: [1]")
    with pytest.raises(InputError, match="^required: --data_file; see --help$"):
        parse(Spelled, "spelled", ["--config", f"{tmp_path}/c.yaml", "--allow_overlap"])


def test_the_settings_of_a_run_can_be_printed_as_a_file(tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_:
        parse(Spelled, "spelled", ["--data_file", "m.smi", "--seeds", "1", "2", "--print_config"])
    assert exit_.value.code == 0
    (tmp_path / "c.yaml").write_text(capsys.readouterr().out)
    settings = parse(Spelled, "spelled", ["--config", f"{tmp_path}/c.yaml"])
    assert settings == Spelled(data_file="m.smi", seeds=[1, 2])


def test_help_tells_the_docstring_and_the_default_of_each_setting(capsys):
    with pytest.raises(SystemExit):
        parse(Spelled, "spelled", ["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "--data_file DATA_FILE Where molecules are. (required, type: str)" in shown
    assert "Whether to. (type: bool, default: False)" in shown
    assert "Some numbers. (type: list[int], default: [42])" in shown
    assert "A number or none. (type: int | null, default: 8)" in shown


@pytest.mark.parametrize("job", molsieve._jobs())
def test_every_job_runs_by_its_name(job, capsys):
    with pytest.raises(SystemExit) as exit_:
        molsieve.main("molsieve", [job, "--help"])
    assert exit_.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: molsieve {job} [")
    assert molsieve.main("python -m jobs", [job, "--nonsense"]) == 2
    assert capsys.readouterr().err.startswith(f"jobs {job}: error: ")
