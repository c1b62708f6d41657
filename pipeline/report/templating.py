"""Jinja's templates of this room; all that is put into them is escaped."""

from __future__ import annotations

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

SHAPES = {  # of points
    "circle": "m-2.2 0a2.2 2.2 0 1 0 4.4 0a2.2 2.2 0 1 0-4.4 0",
    "square": "m-2-2h4v4h-4z",
    "triangle": "m0-3l2.8 5h-5.6z",
    "diamond": "m0-3l3 3l-3 3l-3-3z",
}


@cache
def environment() -> Environment:
    """The templates: escaping whatever a file's name ends in, and no name unknown."""
    made = Environment(
        loader=PackageLoader("pipeline.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals |= {"kind_of": _kind, "swatch": _swatch}
    return made


def svg(template: str, **values: Any) -> Markup:
    """A drawing by a template."""
    return Markup(environment().get_template(template).render(**values))  # noqa: S704


def _kind(block: object) -> str:
    """A block's kind, by which the page picks how to show it."""
    return type(block).__name__


def _swatch(form: str) -> str:
    """The path of a legend's mark, in a box of 22 × 12."""
    if form in SHAPES:
        return f"M11 6{SHAPES[form]}"
    return "M1 11V2H21V11z" if form.endswith("stairs") else "M0 6H22"
