"""gemmi, which reads structure files; imported only where they are read."""

from __future__ import annotations

from pipeline.runtime.errors import InputError


def library():
    """gemmi; InputError if it is not installed."""
    try:
        import gemmi
    except ModuleNotFoundError:
        raise InputError(
            "--structures folder needs the package 'gemmi'; install it with: "
            "pip install 'molsieve[structures]'"
        ) from None
    return gemmi
