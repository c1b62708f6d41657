"""The wheel, installed where nothing else is: its commands, and the files that come with it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.commands import REPOSITORY

BUILD = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
PACKAGES = ("jobs", "pipeline")
JOBS = {path.stem for path in REPOSITORY.glob("jobs/[!_]*.py")} - {"cli"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy: what an earlier build left in the checkout would get in."""
    folder, source = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("source")
    for package in PACKAGES:
        shutil.copytree(REPOSITORY / package, source / package)
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / file, source)
    subprocess.run([sys.executable, "-c", BUILD, folder], cwd=source, check=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def bare(wheel, tmp_path_factory) -> Path:
    """The programs' folder of an environment that holds the wheel and not even pip."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, symlinks=True)
    python = folder / "bin/python"
    pip = [sys.executable, "-m", "pip", "--python", python]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", wheel], check=True)
    return python.parent


@pytest.fixture
def run(bare, tmp_path):
    """Run a program of that environment in an empty folder, if asked with the packages of ours."""

    def run(program: str, *argv: str, packages: bool = False) -> subprocess.CompletedProcess:
        # in PYTHONPATH, unlike in an environment, no link to the checkout is followed
        env = {**os.environ, "PYTHONPATH": sysconfig.get_path("purelib") if packages else ""}
        return subprocess.run(
            [bare / program, *argv], cwd=tmp_path, env=env, capture_output=True, text=True,
            check=False,
        )  # fmt: skip

    return run


def test_the_wheel_holds_every_module_the_small_model_and_the_templates(wheel):
    modules = {
        str(path.relative_to(REPOSITORY))
        for package in PACKAGES
        for path in (REPOSITORY / package).rglob("*.py")
    }
    mini = {f"pipeline/encoders/unimol/mini/{name}" for name in ("mini.pt", "dict.txt")}
    templates = {
        str(path.relative_to(REPOSITORY)) for path in REPOSITORY.glob("pipeline/report/templates/*")
    }
    assert templates and modules | mini | templates <= set(ZipFile(wheel).namelist())


@pytest.mark.parametrize(
    ("program", "argv"), [("molsieve", []), ("molsieve", ["--help"]), ("python -m jobs", [])]
)
def test_without_a_job_they_are_listed_and_no_other_package_is_needed(run, program, argv):
    done = run(*program.split(), *argv)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: {program} JOB ")
    lines = [line.split(maxsplit=1) for line in done.stdout.splitlines() if line[:2] == "  "]
    assert {job for job, what in lines if what.endswith(".")} == JOBS


def test_an_unknown_job_is_one_line_that_names_the_jobs(run):
    done = run("molsieve", "nope")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("molsieve: error: no job 'nope'; ")
    assert len(done.stderr.splitlines()) == 1 and all(job in done.stderr for job in JOBS)


def test_a_job_runs_under_the_name_it_was_called_by(run):
    done = run("molsieve", "encode", "--help", packages=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: molsieve encode [")
    assert "--data_file" in done.stdout


def test_quickstart_without_the_repository_says_where_the_sample_is(run):
    done = run("molsieve", "quickstart", packages=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("molsieve quickstart: error: the sample comes with MolSieve's ")
