"""Packages of extras: told when they are missing, before anything is computed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from pipeline.runtime.errors import InputError


def package(name: str, extra: str = "generation") -> Any:
    """A package, or a module of one, of an extra. InputError if it is not installed."""
    try:
        return import_module(name)
    except ImportError:
        raise InputError(
            f"generators need {name}; install it by: pip install 'molsieve[{extra}]'"
        ) from None
