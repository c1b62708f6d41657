"""Errors that a user can mend; commands print them as one line and exit with 2."""

# What torch, its allocator on a CPU, cuBLAS and Triton, and numpy say.
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "ALLOC_FAILED", "MemoryError")


class InputError(ValueError):
    """The input or a setting is wrong; the message says what, where and how to mend it."""


class DamagedFile(InputError):
    """Files of the store or of scores are damaged; they were set aside, a run makes them anew.

    A job that meets one starts over; see `pipeline.runtime.files.starting_over`.
    """


class RowsMissing(DamagedFile, KeyError):
    """Rows that the store had, or should have, are not in it."""

    __str__ = Exception.__str__  # KeyError's would quote the line


def told(error: BaseException) -> str:
    """An error's first line; of one that a Ray worker raised, without what Ray adds to it."""
    lines = str(getattr(error, "cause", error)).splitlines()
    return lines[0] if lines else type(error).__name__


def reason_of(error: BaseException) -> str:
    """Why a part of a run failed, in one line: what is wrong with the input, or what went wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = lines[-1] if lines else "no reason given"  # of a remote traceback the last line says it
    return told if isinstance(error, InputError) else f"{type(error).__name__}: {told}"


class RowRejected(Exception):
    """One molecule cannot be processed; the message is the reason kept in `rejected`."""
