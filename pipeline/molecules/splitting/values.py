"""Values of a column in order: numbers, dates, words; or the times that they stand for."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from pipeline.runtime.errors import InputError

# Formats that are proposed where values are no ISO dates. %d and %m fit 5 as well as 05.
_ORDERS = ("%d-%m-%Y", "%m-%d-%Y", "%Y-%m-%d", "%d-%m-%y", "%m-%d-%y", "%y-%m-%d",
           "%d-%b-%Y", "%b-%d-%Y", "%Y-%b-%d", "%d-%b-%y", "%d-%B-%Y", "%B-%d-%Y")  # fmt: skip
_DAYS = (*(order.replace("-", sign) for sign in "/.- " for order in _ORDERS),
         "%b %d, %Y", "%B %d, %Y", "%b. %d, %Y", "%d. %b %Y", "%d. %B %Y",
         "%a, %d %b %Y")  # fmt: skip
_TIMES = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p")
_OTHERS = ("%m/%Y", "%Y/%m", "%m-%Y", "%Y-%m", "%b %Y", "%B %Y", "%b-%Y", "%b-%y",
           "%a %b %d %H:%M:%S %Y")  # fmt: skip
DATE_FORMATS = (*(day + time for day in _DAYS for time in _TIMES), *_OTHERS)
_ISO = re.compile(r"\d{4}-\d{2}(-\d{2}([T ]\d{2}:?\d{2}.*)?)?")


def by_value(names: list[str], date_format: str | None, where: str) -> tuple[list[str], str]:
    """Distinct values in rising order, and what they were taken for."""
    if date_format is not None:
        dates = _dates(names, date_format, where)
        return _sorted(names, dates), f"dates as {date_format}, oldest first"
    numbers = [_number(name) for name in names]
    if None not in numbers:
        return _sorted(names, numbers), "numbers, smallest first"
    dates = [_iso_date(name) for name in names]
    if None not in dates:
        return _sorted(names, dates), "ISO dates, oldest first"
    if any(map(_has_digit, names)):
        why = _why_no_order(
            names,
            {"a number": _number, "an ISO date": _iso_date},
            "and text order is only for values without digits; write numbers as 1.5 and dates as "
            "2001-02-05, pass a --date_format that fits all",
        )
        raise InputError(f"{where}: {why}, or --column_order count")
    return names, "words in text order"


def days(names: list[str], date_format: str | None, where: str) -> tuple[dict[str, str], str]:
    """The day of each distinct value, or its year, and what they were taken for.

    Returns
    -------
    dict
        Each value's day in UTC (2001-02-05) or, if all values are years, its year (2001). As
        texts these are in the order of time.
    str
        What the values were taken for.

    Raises
    ------
    InputError
        If some value is neither, or is so in more than one way.
    """
    if date_format is not None:
        dates, told = _dates(names, date_format, where), f"dates as {date_format}"
        return _days(names, dates), f"{told}, earliest first"
    years = [_year(name) for name in names]
    if None not in years:
        return dict(zip(names, map(str, years))), "years, earliest first"
    dates = [_iso_day(name) for name in names]
    if None not in dates:
        return _days(names, dates), "ISO dates, earliest first"
    if not any(map(_has_digit, names)):
        raise InputError(
            f"{where}: its values are words, which have no time ({examples(map(repr, names))}); "
            "name a column of dates or years, or pass --by column"
        )
    why = _why_no_order(
        names,
        {"a year": _year, "an ISO date": _iso_day},
        "and no date format that MolSieve tries fits all; write years as 2001 and dates as "
        "2001-02-05, or pass a --date_format that fits all",
    )
    raise InputError(f"{where}: {why}")


def _days(names: list[str], dates: list[datetime]) -> dict[str, str]:
    return {name: _day(date) for name, date in zip(names, dates)}


def _day(date: datetime) -> str:
    try:
        return date.astimezone(UTC).date().isoformat()
    except OverflowError:  # on the first or last day of all
        return date.date().isoformat()


def _why_no_order(names: list[str], kinds: dict[str, Callable[[str], Any]], advice: str) -> str:
    """Which values are of none of two kinds, and what to pass for them.

    Parameters
    ----------
    kinds : of each kind of value, what gives None for a value that is not of it.
    advice : what else to do if no date format fits.
    """
    odd = [name for name in names if all(read(name) is None for read in kinds.values())]
    if not odd:
        several = " and ".join(f"{kind.split(maxsplit=1)[1]}s" for kind in kinds)
        return f"{several} have no common order; write all as dates"
    odd.sort(key=_has_digit, reverse=True)  # the telling ones first
    told = (
        f"{len(odd):,} of {len(names):,} values are neither {' nor '.join(kinds)} "
        f"({examples(map(repr, odd))})"
    )
    formats = [f"--date_format '{form}'" for form in _fitting_formats(names)]
    if not formats:
        return f"{told}, {advice}"
    if len(formats) == 1:
        return f"{told}; pass {formats[0]}"
    return f"{told} and as dates are ambiguous: {' and '.join(formats)} fit all; pass the right one"


def _fitting_formats(names: list[str]) -> list[str]:
    """The formats that fit all values; of those that read the same dates, the first."""
    fitting: dict[tuple, str] = {}
    for form in DATE_FORMATS:
        if all(_date(name, form) for name in names):
            fitting.setdefault(tuple(_date(name, form) for name in names), form)
    return list(fitting.values())


def _has_digit(name: str) -> bool:
    return any(map(str.isdigit, name))


def _dates(names: list[str], date_format: str, where: str) -> list[datetime]:
    dates = [_date(name, date_format) for name in names]
    others = [name for name, date in zip(names, dates) if date is None]
    if others:
        raise InputError(
            f"{where}: {len(others):,} of {len(names):,} values do not fit --date_format "
            f"{date_format!r} ({examples(map(repr, others))})"
        )
    return dates


def _sorted(names: list[str], values: Sequence[Any]) -> list[str]:
    return [name for _, name in sorted(zip(values, names))]


def _number(name: str) -> float | None:
    try:
        number = float(name)
    except ValueError:
        return None
    return number if math.isfinite(number) and "_" not in name else None


def _year(name: str) -> int | None:
    """The year of 2001 or, as tables with gaps have it, of 2001.0."""
    number = _number(name)
    return int(number) if number in range(1000, 10_000) else None


def _iso_day(name: str) -> datetime | None:
    """An ISO date, also without dashes: 20010205."""
    compact = re.fullmatch(r"\d{8}", name.strip(), re.ASCII)
    return _date(name, "%Y%m%d") if compact else _iso_date(name)


def _iso_date(name: str) -> datetime | None:
    text = name.strip()
    if not _ISO.fullmatch(text):
        return None
    try:
        return _in_utc(datetime.fromisoformat(text if len(text) > 7 else f"{text}-01"))
    except ValueError:
        return None


def _date(name: str, date_format: str) -> datetime | None:
    try:
        return _in_utc(datetime.strptime(name.strip(), date_format))
    except ValueError:
        return None


def _in_utc(date: datetime) -> datetime:
    """A date that compares with any other; one without a time zone is taken as UTC."""
    return date.replace(tzinfo=UTC) if date.tzinfo is None else date


def examples(texts: Iterable[str]) -> str:
    """The first three different texts."""
    distinct = list(dict.fromkeys(texts))
    return ", ".join(distinct[:3]) + (", …" if len(distinct) > 3 else "")
