"""The domains of molecules, and the order in which a split takes them in."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from rdkit import Chem
from rdkit.Chem.Scaffolds import MurckoScaffold

from pipeline.molecules.kinds import SEQUENCE, SMILES, Kind
from pipeline.molecules.reading.missing import is_missing
from pipeline.molecules.settings import SplitSettings
from pipeline.molecules.splitting.clusters import clusters_of
from pipeline.molecules.splitting.values import by_value, days, examples
from pipeline.runtime.errors import InputError


class Domains(NamedTuple):
    """Each molecule's domain, the domains in the order in which they become ID, and what it is."""

    names: list[str]
    order: list[str]
    told: str


def domains_of(molecules: pa.Table, settings: SplitSettings, kind: Kind = SMILES) -> Domains:
    """The domains of `smiles`, or of the column `domain`.

    Raises
    ------
    InputError
        If a domain is missing, the values of a column cannot be brought into order, or there are
        too few molecules for so many clusters.
    """
    if settings.by == "cluster":
        return _of_clusters(molecules["smiles"].to_pylist(), settings, kind)
    if settings.has_column:
        return _of_column(molecules["domain"].to_pylist(), settings)
    domain_of, told = {
        "scaffold": (scaffold_domain, "scaffolds, most atoms first"),
        "size": (size_domain, "numbers of heavy atoms, largest first"),
    }[settings.by]
    if kind == SEQUENCE:  # which have no scaffolds
        domain_of, told = length_domain, "lengths, longest first"
    domains = [domain_of(smiles) for smiles in molecules["smiles"].to_pylist()]
    order = sorted(dict.fromkeys(domains), key=lambda domain: (-domain[1], domain[0]))
    return Domains([name for name, _ in domains], [name for name, _ in order], told)


def _of_clusters(smiles: list[str], settings: SplitSettings, kind: Kind) -> Domains:
    found, of_what = clusters_of(smiles, settings, kind)
    names = list(map(str, found))
    order = np.random.default_rng(settings.seed).permutation(sorted(set(names))).tolist()
    return Domains(names, order, f"{len(order):,} clusters of {of_what}, in random order")


def scaffold_domain(smiles: str) -> tuple[str, float]:
    """The Murcko scaffold's SMILES and its number of atoms, DrugOOD's sorting value.

    Without stereo and isotopes, so that isomers share a domain.
    """
    molecule = Chem.MolFromSmiles(smiles)
    Chem.RemoveStereochemistry(molecule)
    scaffold = MurckoScaffold.GetScaffoldForMol(molecule)
    return Chem.MolToSmiles(scaffold, isomericSmiles=False), scaffold.GetNumAtoms()


def size_domain(smiles: str) -> tuple[str, float]:
    """The number of heavy atoms, as a domain and as its sorting value."""
    atoms = Chem.MolFromSmiles(smiles).GetNumHeavyAtoms()
    return str(atoms), atoms


def length_domain(sequence: str) -> tuple[str, float]:
    """The number of residues, as a domain and as its sorting value."""
    return str(len(sequence)), len(sequence)


def with_domains(molecules: pa.Table, settings: SplitSettings) -> pa.Table:
    """The rows whose `domain` is not missing, if --missing_domain is drop.

    Raises
    ------
    InputError
        If it is not, and some are missing.
    """
    names = molecules["domain"].to_pylist()
    if settings.missing_domain == "error":
        _check_missing(names, settings)
        return molecules
    return molecules.filter(pa.array([not is_missing(name) for name in names], pa.bool_()))


def _check_missing(names: list[str | None], settings: SplitSettings) -> None:
    missing = ["an empty cell" if not name else repr(name) for name in names if is_missing(name)]
    if missing:
        raise InputError(
            f"{settings.data_file}: column {settings.column!r} is missing in {len(missing):,} of "
            f"{len(names):,} rows ({examples(missing)}); fill them, or pass --missing_domain drop"
        )


def _of_column(names: list[str | None], settings: SplitSettings) -> Domains:
    _check_missing(names, settings)
    where = f"{settings.data_file}: column {settings.column!r}"
    distinct = sorted(dict.fromkeys(names))
    if settings.by == "time":
        day_of, told = days(distinct, settings.date_format, where)
        order = sorted(set(day_of.values()))
        return Domains([day_of[n] for n in names], order, f"column {settings.column!r}, {told}")
    if settings.column_order == "value":
        order, told = by_value(distinct, settings.date_format, where)
        return Domains(names, order, f"column {settings.column!r}, {told}")
    counts = Counter(names)
    order = sorted(distinct, key=lambda name: (-counts[name], name))
    return Domains(names, order, f"column {settings.column!r}, most molecules first")
