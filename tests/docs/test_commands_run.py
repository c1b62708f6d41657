"""Every command of README.md and docs/ runs as it stands, page by page, in an empty home."""

from __future__ import annotations

import csv
import gzip
import json
import random
import re
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.commands import REPOSITORY
from tests.docs.blocks import Command, commands_of
from tests.docs.shell import Failed, can_be_alone, copy_repository, run

PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]

# What does not run, and why; `test_pages` checks its flags and files as those of all others.
NOT_RUN = {
    r"^make (quickstart|test)\b": "takes minutes; the tests of its job, and these",
    r"\bray (up|dashboard|down) ": "AWS, by cluster.yaml",
    r"\bray job submit --address http": "AWS, by cluster.yaml",
    r"\bpip install\b": "needs a download",
    r"\bjobs\.fold --data_file proteins\.fasta\b": "needs a download of 8 GB",
    r"\bjobs\.tune\b": "takes minutes: 2 seconds for each of the batch sizes, on all cores",
}
NOT_RUN_UNLESS_ALONE = r"\bray (start|stop|job)\b"

HEAD = Command(0, ".venv/bin/ray start --head --include-dashboard=false")
MANY = 3

SHIPPED = REPOSITORY / "data"
MOLECULES = 200  # of each table; p-values need 20 of them in a split's iid_val


class Inputs(NamedTuple):
    """Tables from which the inputs are made."""

    hiv: list[dict[str, str]]
    """smiles, HIV_active"""
    moses: list[str]
    """SMILES"""


def small_tables() -> Inputs:
    with gzip.open(SHIPPED / "hiv_sample.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file))
    actives = [row for row in rows if row["HIV_active"] == "1"][: MOLECULES // 4]
    others = [row for row in rows if row["HIV_active"] == "0"][: MOLECULES - len(actives)]
    smiles = (REPOSITORY / "tests/data/moses.smi").read_text().split()
    return Inputs(actives + others, smiles[:MOLECULES])


def write_table(path: Path, rows: list[dict[str, object]]) -> None:
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        return pq.write_table(pa.Table.from_pylist(rows), path)
    with (gzip.open if path.suffix == ".gz" else open)(path, "wt", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def made_up_peptides() -> Iterator[dict[str, str]]:
    """Of two classes; hardly any are alike."""
    drawn = random.Random(0)
    for number in range(240):
        letters = drawn.choices("ACDEFGHIKLMNPQRSTVWY", k=drawn.randint(14, 24))
        yield {"sequence": "".join(letters), "class": ("antimicrobial", "other")[number % 2]}


def supply_inputs(folder: Path) -> None:
    """The reader's own files, under the names that the pages use; the shipped ones made small."""
    hiv, moses = small_tables()
    smiles = [row["smiles"] for row in hiv]
    dates = (f"{2000 + i % 20}-0{1 + i % 9}-12" for i in range(len(smiles)))
    labels = [round(3 + len(s) / 20, 2) for s in smiles]
    write_table(folder / "data/hiv_sample.csv.gz", hiv)
    write_table(folder / "hiv.csv.gz", hiv)
    write_table(
        folder / "features.parquet",
        [{"x": [i % 7, i**0.5, i % 11], "kind": "ab"[i % 2]} for i in range(len(smiles))],
    )
    write_table(folder / "dated.csv", [{"smiles": s, "date": d} for s, d in zip(smiles, dates)])
    write_table(folder / "molecules.parquet", [{"smiles": s} for s in moses])
    write_table(
        folder / "training_set.csv",
        [{"id": f"T{i}", "smiles": s, "y": labels[i]} for i, s in enumerate(smiles)],
    )
    write_table(folder / "library.csv", [{"id": f"L{i}", "smiles": s} for i, s in enumerate(moses)])
    drawn = random.Random(0)
    write_table(
        folder / "predictions.csv",
        [
            {"smiles": s, "predicted": 6 + drawn.gauss(0, 1), "measured": 6 + drawn.gauss(0, 1),
             "spread": drawn.random()} for s in moses
        ],
    )  # fmt: skip
    shutil.copy(REPOSITORY / "tests/data/peptides.fasta", folder / "proteins.fasta")
    write_table(folder / "peptides.csv", list(made_up_peptides()))
    shutil.copy(REPOSITORY / "tests/data/chains.fasta", folder / "chains.fasta")
    shutil.copytree(REPOSITORY / "tests/data/structures", folder / "structures")
    records = (folder / "proteins.fasta").read_text().split(">")
    (folder / "tests.fasta").write_text(">".join(records[:4]))
    with gzip.open(folder / "library.smi.gz", "wt") as file:
        file.writelines(f"{s} L{i}\n" for i, s in enumerate(moses))
    for path in folder.glob("data/*.json.gz"):
        splits = json.loads(gzip.decompress(path.read_bytes()))["split"]
        few = {name: rows[: MOLECULES // len(splits)] for name, rows in splits.items()}
        path.write_bytes(gzip.compress(json.dumps({"split": few}).encode()))
    for path in folder.glob("data/activity_*.csv.gz"):
        with gzip.open(path, "rt") as file:
            rows = list(csv.DictReader(file))
        write_table(path, rows[:: max(1, len(rows) // MOLECULES)])


def reason_not_to_run(command: Command) -> str | None:
    """Why a command stands on the list, if it does."""
    text = command.text.replace("\\\n", " ")
    for pattern, reason in NOT_RUN.items():
        if re.search(pattern, text):
            return reason
    if not can_be_alone() and re.search(NOT_RUN_UNLESS_ALONE, text):
        return "this machine has no namespaces: it would end or meet other tests' Ray"
    return None


def runnable(page: Path) -> list[Command]:
    """A page's commands without those on the list.

    Where many follow on each other, they join a Ray that has been started before, as they do on any
    machine where one runs, and save its start; README.md and short pages start their own.
    """
    commands = [c for c in commands_of(page.read_text()) if reason_not_to_run(c) is None]
    starts = any("ray start" in c.text for c in commands)
    return [HEAD, *commands] if len(commands) > MANY and not starts and can_be_alone() else commands


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Iterator[Path]:
    """A fresh clone of the repository, and the reader's files; the pages run in it in turn."""
    folder = tmp_path_factory.mktemp("docs") / "molsieve"
    folder.mkdir()
    copy_repository(folder)
    supply_inputs(folder)
    (folder.parent / "home").mkdir()
    yield folder
    shutil.rmtree(folder)


@pytest.mark.pages
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_a_page_run(page, checkout):
    if not can_be_alone():
        warnings.warn("no namespaces on this machine: ray start is not run", stacklevel=1)
    shutil.rmtree(checkout / "outputs", ignore_errors=True)  # each page stands by itself
    if commands := runnable(page):
        print(f"{run(commands, checkout, checkout.parent / 'home'):.0f} CPU seconds")  # pytest -rP


def test_what_is_not_run_stands_on_a_page():
    every = [c.text.replace("\\\n", " ") for page in PAGES for c in commands_of(page.read_text())]
    for pattern in NOT_RUN:
        assert any(re.search(pattern, text) for text in every), pattern


def test_commands_are_found_in_blocks():
    page = (
        "a\n```bash\nb c \\\n    d  # e\n\n# f\ng\n```\n```console\n$ h\ni\n$ j \\\n  k\nl\n```\n"
    )
    page += "```python\nm = 1\n```\n```\nn\n```\n```yaml\no: p\n```\n```python\nq(m)\n```\n"
    shell, python = commands_of(page)[:-1], commands_of(page)[-1]
    assert shell == [
        Command(3, "b c \\\n    d  # e"), Command(7, "g"),
        Command(10, "h"), Command(12, "j \\\n  k"),
    ]  # fmt: skip
    assert python.line == 26 and "m = 1\n\nq(m)\n" in python.text


def test_the_first_command_that_fails_is_named(tmp_path):
    (tmp_path / "home").mkdir()
    commands = [Command(3, "export A=b"), Command(4, "test $A = b"), Command(5, "test $A = c")]
    run(commands[:2], tmp_path, tmp_path / "home")
    with pytest.raises(Failed, match=r"^line 5: test \$A = c"):
        run([*commands, Command(6, "true")], tmp_path, tmp_path / "home")
