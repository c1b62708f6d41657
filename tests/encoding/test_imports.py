"""Processes that read files and make conformers do without what takes seconds to import."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.commands import REPOSITORY


@pytest.mark.parametrize("steps", ["encoding", "scoring"])
def test_the_steps_on_workers_do_not_import_torch(steps):
    code = (
        f"import sys, pipeline.{steps}.steps; print(sorted({{'torch', 'ray'}} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "['ray']"
