"""JSON: DrugOOD's splits, a list of objects, or an object a line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from pipeline.molecules.reading.content import (
    HEAD_ROWS,
    Content,
    Piece,
    Refused,
    collected,
)
from pipeline.molecules.reading.text import clean, lines_of, opened_text
from pipeline.runtime.errors import InputError

SPLIT, PLACE = "(split)", "(place)"  # columns of DrugOOD's files that no item has


def open_json(uri: str, stem: str) -> Content:
    """DrugOOD's object of splits, or a list of objects.

    Parameters
    ----------
    stem : what the made ids of DrugOOD's items begin with.

    Raises
    ------
    InputError
        If it is no valid JSON, or neither.
    """
    with opened_text(uri) as file:
        try:
            content = json.load(file)
        except (json.JSONDecodeError, RecursionError) as error:
            raise InputError(f"{uri}: not valid JSON: {error}") from None
    if isinstance(content, list) and all(isinstance(item, dict) for item in content):
        return _of_objects("a list of JSON objects", lambda: enumerate(content))
    splits = content.get("split") if isinstance(content, dict) else None
    if not isinstance(splits, dict):
        raise InputError(
            f"{uri}: no 'split' object; expected DrugOOD's format or a list of objects"
        )
    for split, items in splits.items():
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise InputError(f"{uri}: split {split!r} is not a list of objects")
    placed = [
        {**item, SPLIT: split, PLACE: f"{stem}:{split}:{number}"}
        for split, items in splits.items()
        for number, item in enumerate(items)
    ]
    usual = {"id": PLACE, "split": SPLIT, "label": "cls_label", "domain": "domain_id"}
    told = "DrugOOD's format names the splits itself"
    every = _of_objects("DrugOOD's format", lambda: enumerate(placed), None, usual)
    return replace(every, fixed={"split": told})


def open_json_lines(uri: str) -> Content:
    """An object a line."""

    def objects() -> Iterator[tuple[int, Any]]:
        with opened_text(uri) as file:
            lines = (line for line in lines_of(file, uri) if line.strip())
            for position, line in enumerate(lines):
                try:
                    yield position, json.loads(line)
                except (json.JSONDecodeError, RecursionError) as error:
                    yield position, Refused(position, clean(line.strip()), f"not JSON: {error}")

    return _of_objects("JSON objects, one a line", objects, HEAD_ROWS)


def _of_objects(
    kind: str,
    objects: Callable[[], Iterable[tuple[int, Any]]],
    most: int | None = None,
    usual: Mapping[str, str] | None = None,
) -> Content:
    """Objects with their places as rows, the keys of the first `most` of them as columns."""
    head = [item for _, item in islice(objects(), most) if isinstance(item, dict)]
    names = list(dict.fromkeys(name for item in head for name in item))
    usual = {role: name for role, name in (usual or {}).items() if name in names}

    def rows(columns: Sequence[str]) -> Iterable[tuple[list[str | None], int] | Refused]:
        for position, item in objects():
            if isinstance(item, Refused):
                yield item
            elif not isinstance(item, dict):
                text = clean(json.dumps(item))
                yield Refused(position, text, "not a JSON object")
            else:
                yield [as_text(item.get(name)) for name in columns], position

    def pieces(columns: Sequence[str]) -> Iterator[Piece]:
        yield from collected(iter(rows(columns)), columns)

    shown = [name for name in names if name not in (SPLIT, PLACE)]
    return Content(kind, shown, pieces, usual, of_head=most is not None)


def as_text(value: Any) -> str | None:
    """A JSON value as a table's cell has it."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value)
