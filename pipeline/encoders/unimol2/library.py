"""unimol_tools, which the extra `unimol2` brings along, and what its import does to a process."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import tempfile
import warnings
from functools import lru_cache
from threading import Lock
from types import ModuleType

PACKAGE = "unimol_tools"
LOGGER = "Uni-Mol Tools"
DEFAULT_MAX_ATOMS = 256  # heavy atoms that the encoder takes of a molecule
_one_at_a_time = Lock()


def check_installed() -> None:
    """ModuleNotFoundError if unimol_tools is not installed; nothing is imported."""
    if importlib.util.find_spec(PACKAGE) is None:
        raise ModuleNotFoundError(f"No module named {PACKAGE!r}", name=PACKAGE)


@lru_cache
def library(module: str) -> ModuleType:
    """A module of unimol_tools, such as "models.unimolv2"; the first takes seconds.

    The import would leave a folder `logs` where the process stands, all messages of all libraries
    in the log, and no warnings: those are put back. Meanwhile the whole process stands elsewhere,
    so it is for the thread that makes an encoder or graphs, not for others beside it.
    """
    with _one_at_a_time:
        level, place = logging.root.level, os.getcwd()
        with tempfile.TemporaryDirectory() as elsewhere, warnings.catch_warnings():
            os.chdir(elsewhere)
            try:
                found = importlib.import_module(f"{PACKAGE}.{module}")
            finally:
                os.chdir(place)
                logging.root.setLevel(level)
        log = logging.getLogger(LOGGER)
        for handler in [h for h in log.handlers if isinstance(h, logging.FileHandler)]:
            if handler.stream is None:  # its folder is gone
                log.removeHandler(handler)
        return found
