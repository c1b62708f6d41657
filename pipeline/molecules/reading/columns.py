"""Which column of a file is the SMILES, the id, the split, the label, the domain."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rdkit import Chem, rdBase

from pipeline.molecules.reading.content import HEAD_ROWS, Content
from pipeline.molecules.settings import LibrarySettings
from pipeline.runtime.errors import InputError

ROLES_OF_COLUMNS = ("id", "smiles", "split", "label", "domain")
SMILES_COLUMN = LibrarySettings.__dataclass_fields__["smiles_column"].default
# Names of the SMILES column in tables of ChEMBL, Enamine, ZINC, TDC, MoleculeNet and others, in
# the order in which they count; upper and lower case, blanks, - and _ alike.
ALIASES = (
    "smiles", "canonical_smiles", "isomeric_smiles", "cxsmiles", "smiles_string", "smi", "drug",
    "structure", "mol",
)  # fmt: skip
WORDS = ("drug", "structure", "mol")  # of ALIASES, that cells of a table may hold too
LONGEST = 1000  # characters of a text that is_smiles looks at
NUMBERED = re.compile(r"column_(\d+)")  # as columns without a header are named
SAMPLE, SHARE = 20, 0.8  # first rows of a table, and the share that must be SMILES to be molecules


def chosen_columns(
    settings: LibrarySettings, content: Content, name: str
) -> tuple[dict[str, str], list[str]]:
    """The column that each of id, smiles, split, label, domain is read from, and what was guessed.

    A name that is not there is looked for without its case; SMILES also by its usual names.

    Raises
    ------
    InputError
        If a column is missing, there twice or ambiguous, or a flag cannot apply to the file.
    """
    chosen, notes = dict(content.usual), []
    if not content.columns:  # JSON without any object
        return chosen, notes
    for role in ROLES_OF_COLUMNS:
        flag, asked = f"--{role}_column", getattr(settings, f"{role}_column", None)
        if role == "smiles" and settings.sequence_column is not None:
            flag, asked = "--sequence_column", settings.sequence_column
        known = role == "smiles" and role in chosen
        if asked is None or (known and (asked == SMILES_COLUMN or content.holds_sequences)):
            continue
        if role == "domain" and getattr(settings, "column", None) is not None:
            flag = "--column"  # by which jobs.split names it
        if role in content.fixed:
            raise InputError(f"{name}: {flag} cannot apply: {content.fixed[role]}")
        found = named(asked, content.columns)
        if not found and flag == "--smiles_column" and asked == SMILES_COLUMN:
            several = list(dict.fromkeys(smiles_names(content.columns)))
            found = several[0] if several else None
            if several[1:]:
                raise InputError(
                    f"{name}: {' and '.join(map(repr, several))} may both hold the SMILES; say "
                    "which by --smiles_column"
                )
        if not found:
            head = f" in its first {HEAD_ROWS} rows" if content.of_head else ""
            raise InputError(
                f"{name}: {content.kind} has no column {asked!r}{head}; it has "
                f"{', '.join(map(str, content.columns)) or 'none'}. Set {flag}"
            )
        if content.columns.count(found) > 1:
            raise InputError(
                f"{name}: column {found!r} occurs {content.columns.count(found)} times; rename "
                "all but one"
            )
        if found != asked:
            notes.append(f"column {found!r} is read as {flag} {asked}")
        chosen[role] = found
    return chosen, notes


def named(asked: str, columns: Sequence[str]) -> str | None:
    """The column of that name, or the only one of that name in another case."""
    if asked in columns:
        return asked
    alike = {column for column in columns if column.casefold() == asked.casefold()}
    return alike.pop() if len(alike) == 1 else None


def smiles_names(columns: Sequence[str]) -> list[str]:
    """The columns that usually hold SMILES, of the first of ALIASES that is there."""
    plain = [re.sub(r"[\s_-]+", "_", column.strip().casefold()) for column in columns]
    alias = next((alias for alias in ALIASES if alias in plain), None)
    return [column for column, name in zip(columns, plain) if name == alias]


def smiles_of_header(cells: Sequence[str], settings: LibrarySettings) -> str | None:
    """The name of the molecules' column in a table's first row, None if that names none."""
    if settings.sequence_column is not None:
        return named(settings.sequence_column, [cell.strip() for cell in cells])
    if settings.smiles_column != SMILES_COLUMN:
        return named(settings.smiles_column, [cell.strip() for cell in cells])
    found = smiles_names(cells)
    word = bool(found) and found[0].strip().casefold() in WORDS
    return None if not found or (word and any(map(is_smiles, cells))) else found[0]


def smiles_place(rows: Sequence[Sequence[str]], settings: LibrarySettings) -> int | None:
    """The column that is the SMILES' in a table whose first row is a molecule already, else None.

    Its cells are SMILES, in the first row and in nearly all of the next; of several such columns,
    that with the longest. Or --smiles_column says its number, as columns without a header are
    named; of sequences --sequence_column must.
    """
    if settings.sequence_column is not None:
        return _numbered(settings.sequence_column, len(rows[0]))
    places = {}
    for place in range(len(rows[0])):
        cells = [row[place] for row in rows[:SAMPLE] if place < len(row)]
        parsed = [is_smiles(cell) for cell in cells]
        if parsed[0] and sum(parsed) >= SHARE * len(parsed):
            places[place] = sum(map(len, cells))
    if not places:
        return None
    place = max(places, key=places.get)  # classes C and N are SMILES too
    if settings.smiles_column == SMILES_COLUMN:
        return place
    return _numbered(settings.smiles_column, len(rows[0]))


def _numbered(name: str, columns: int) -> int | None:
    """The place of a column that is named as those without a header are."""
    number = NUMBERED.fullmatch(name)
    return int(number[1]) - 1 if number and 0 < int(number[1]) <= columns else None


def is_smiles(text: str) -> bool:
    """Whether RDKit reads a text, but for a CXSMILES extension, as a molecule with atoms."""
    text = text.strip().split(" |")[0]
    if not text.isascii() or len(text) > LONGEST or len(text.split()) != 1:
        return False
    with rdBase.BlockLogs():  # that a word is none is no news
        molecule = Chem.MolFromSmiles(text)
    return molecule is not None and molecule.GetNumAtoms() > 0
