"""A training set of the user's own, and molecules unlike it, cut into roles: `--id_file`.

A random part of the training set calibrates p-values and intervals: nothing is fitted or chosen
by it, so it is exchangeable with new molecules of its kind. Validation is cut from the rest, and
from the OOD molecules, by whole clusters of similar molecules.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import fields, replace
from importlib.resources import as_file, files

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.encoding.kinds import kind_of_views
from pipeline.encoding.plan import check_kind
from pipeline.encoding.views import Plans, check_encoders, encoders_of, plan_views
from pipeline.molecules.folders import kind_of_source, of_file
from pipeline.molecules.formats import check_files, read_rows
from pipeline.molecules.kinds import SEQUENCE
from pipeline.molecules.rejected import REJECTED
from pipeline.molecules.sampling import sampled_rows
from pipeline.molecules.settings import SamplingSettings
from pipeline.molecules.sources import Molecules, parse_rows
from pipeline.molecules.splitting.clusters import at_most
from pipeline.runtime.errors import InputError
from pipeline.training.settings import TrainSettings
from pipeline.training.synthetic_ood import SYNTHETIC, check_synthetic

log = logging.getLogger(__name__)

LEAST_ID, LEAST_OOD = 50, 20
LEAST_LABELLED = 60  # of an error model, which --label_column asks for
CALIBRATION_SHARE, CALIBRATION_MOST = 0.2, 1000
VALIDATION_SHARE = 0.2
CLUSTERS, LEAST_CLUSTERS, LEAST_A_CLUSTER = 30, 4, 5
FOLDS = 2  # of --ood library: each scores the molecules that the other was trained with
BACKGROUND = "background"


def ood_source(settings: TrainSettings) -> str:
    """Where the OOD molecules come from: `--ood`, or what the other flags say.

    Raises
    ------
    InputError
        If flags do not fit together.
    """
    ood = settings.ood or ("file" if settings.ood_file else BACKGROUND)
    if ood == "file" and settings.ood_file is None:
        raise InputError(
            "--ood file needs --ood_file, a table of molecules unlike the training set"
        )
    if ood != "file" and settings.ood_file is not None:
        raise InputError(f"--ood_file does nothing with --ood {ood}; leave one of them out")
    if ood == "library" and settings.library is None:
        raise InputError("--ood library needs --library, the molecules to be scored")
    if ood != "library" and settings.library is not None:
        raise InputError(f"--library does nothing with --ood {ood}; leave one of them out")
    if ood == BACKGROUND and settings.structures == "file":
        raise InputError(
            "--structures file: the molecules of --ood background have no structures; give others "
            "that have by --ood_file"
        )
    if ood == "library" and settings.finetune_encoder:
        raise InputError(
            "--finetune_encoder does not go with --ood library, whose two detectors would each "
            "have an encoder of their own; give molecules unlike the training set by --ood_file"
        )
    if ood == SYNTHETIC:
        check_synthetic(settings)
    return ood


def _check_no_effect(settings: TrainSettings) -> None:
    """InputError for a flag of split files that would be ignored."""
    defaults = {f.name: f.default for f in fields(SamplingSettings) if f.name != "data_seed"}
    defaults["split_column"] = None
    for name, default in defaults.items():
        if getattr(settings, name) != default:
            raise InputError(f"--{name} does nothing with --id_file; leave it out")


def check_training_set(settings: TrainSettings) -> list[str]:
    """Tell wrong flags, files and encoders before any work; what reading has to guess, in words."""
    if settings.data_file is not None:
        raise InputError(
            "--data_file has splits and --id_file has none: give one of them (a split file of "
            "jobs.split goes to --data_file)"
        )
    ood = ood_source(settings)
    _check_no_effect(settings)
    own = _id_settings(settings)
    notes = check_files(own)
    if ood == BACKGROUND and kind_of_source(own) == SEQUENCE:
        raise InputError(
            "--ood background has molecules as SMILES alone; give sequences unlike the training "
            "set by --ood_file, or take --ood library or --ood synthetic"
        )
    check_encoders(own, settings.view_names)
    if ood in ("file", "library"):
        others = _ood_settings(settings, ood)
        notes += check_files(others)
        check_kind(others, encoders_of(settings.view_names))
    return notes


def open_training_set(
    settings: TrainSettings, notes: Sequence[str] = ()
) -> tuple[Plans[TrainSettings], Molecules, pa.Table]:
    """The plans of the encoders, the molecules, and these with their roles.

    Returns
    -------
    plans, source, sample
        `sample` has `role`, `domain` (the cluster, unless --domain_column gives one) and `fold`: of
        OOD molecules 0, or 0 and 1 with --ood library; of ID ones −1. There are no OOD ones with
        --ood synthetic.

    Raises
    ------
    InputError
        If a file is unreadable or has too few molecules.
    """
    ood = ood_source(settings)
    id_rows = as_split(read_rows(_id_settings(settings)))
    plans = plan_views(settings, settings.view_names)
    inside = parse_rows(id_rows, _id_settings(settings))
    _check_enough(f"--id_file {settings.id_file}", inside.molecules, LEAST_ID)
    _check_labels(inside.molecules, settings)
    if ood == SYNTHETIC:
        source = replace(inside, notes=list(notes))
        return plans, source, _with_id_roles(inside.molecules, settings)
    outside, told = _outside(settings, ood, inside.molecules)
    _check_enough(f"--ood {ood}", outside.molecules, LEAST_OOD)
    sample = pa.concat_tables(
        [
            _with_id_roles(inside.molecules, settings),
            _with_ood_roles(outside.molecules, settings, ood),
        ]
    )
    source = Molecules(
        pa.concat_tables([inside.molecules, outside.molecules]),
        pa.concat_tables([inside.rejected, outside.rejected]),
        inside.rows + outside.rows,
        inside.fragments_removed + outside.fragments_removed,
        [*notes, *told],
        inside.kind,
        Counter(inside.tidied) + Counter(outside.tidied),
    )
    for line in told:
        log.info("%s", line)
    return plans, source, sample


def _id_settings(settings: TrainSettings) -> TrainSettings:
    return of_file(settings, settings.id_file, split_column=None)


def _ood_settings(settings: TrainSettings, ood: str) -> TrainSettings:
    """Labels and domains are the training set's alone; ids are the library's too."""
    file = settings.ood_file if ood == "file" else settings.library
    plain = {"label_column": None, "domain_column": None, "split_column": None}
    if ood == "file":  # its ids are seen in messages alone
        plain["id_column"] = None
    return of_file(settings, file, dataset=None, **plain)


def _outside(settings: TrainSettings, ood: str, inside: pa.Table) -> tuple[Molecules, list[str]]:
    """The OOD molecules without those of the training set, and where they come from, in words."""
    if ood == BACKGROUND:
        made = _background(settings)
        rows = made.molecules.num_rows
        if rows > settings.ood_size:
            rng = np.random.default_rng([settings.data_seed, rows])
            some = np.sort(rng.choice(rows, settings.ood_size, replace=False))
            made = replace(made, molecules=made.molecules.take(some), rows=settings.ood_size)
        whence = "public molecules that come with MolSieve (--ood background)"
    else:
        source = _ood_settings(settings, ood)
        made = parse_rows(
            as_split(sampled_rows(source, settings.ood_size, settings.data_seed)), source
        )
        whence = f"a seeded sample of {source.data_file} (--ood {ood})"
    shared = pc.is_in(made.molecules["smiles"], inside["smiles"].combine_chunks())
    left = made.molecules.filter(pc.invert(shared))
    both = made.molecules.filter(shared).select(["id", "smiles"])
    reasons = pa.array(["it is in the training set too"] * both.num_rows, pa.string())
    stages = pa.array(["duplicate"] * both.num_rows, pa.string())
    both = both.append_column("stage", stages).append_column("reason", reasons)
    told = [f"unlike the training set: {left.num_rows:,} {whence}"]
    if both.num_rows:
        told.append(f"{both.num_rows:,} of them left out, as they are in the training set too")
    if ood == "library":
        told.append(
            "a score means: unlike the training set, like the library; molecules of the library "
            "that training used are scored by a second detector that did not"
        )
    rejected = pa.concat_tables([made.rejected, both.cast(REJECTED)])
    return replace(made, molecules=left, rejected=rejected), told


def _background(settings: TrainSettings) -> Molecules:
    packed = files("pipeline.molecules") / "background" / "background.smi.gz"
    with as_file(packed) as path:
        plain = {"smiles_column": "smiles", "id_column": None, "structures": "made"}
        source = replace(_ood_settings(settings, "library"), data_file=str(path), **plain)
        return parse_rows(as_split(read_rows(source)), source)


def as_split(rows: pa.Table) -> pa.Table:
    """Raw rows as one split, in which a molecule's second row is a duplicate."""
    split = pa.array(["train"] * rows.num_rows, pa.string())
    return rows.set_column(rows.column_names.index("split"), "split", split)


def _check_enough(flag: str, molecules: pa.Table, least: int) -> None:
    if molecules.num_rows < least:
        raise InputError(
            f"{flag}: {molecules.num_rows:,} different molecules are too few to train, validate "
            f"and calibrate with; give at least {least}"
        )


def _check_labels(inside: pa.Table, settings: TrainSettings) -> None:
    labelled = pc.sum(pc.is_finite(inside["label"])).as_py() or 0
    if settings.label_column is not None and labelled < LEAST_LABELLED:
        raise InputError(
            f"--label_column {settings.label_column}: {labelled:,} of {len(inside):,} molecules of "
            f"{settings.id_file} have a label, and an error model needs at least {LEAST_LABELLED}; "
            "label more, or leave it out"
        )


def _with_id_roles(molecules: pa.Table, settings: TrainSettings) -> pa.Table:
    rng = np.random.default_rng([settings.data_seed, molecules.num_rows])
    count = min(CALIBRATION_MOST, round(CALIBRATION_SHARE * molecules.num_rows))
    roles = np.full(molecules.num_rows, "id_train", dtype=object)
    roles[rng.choice(molecules.num_rows, count, replace=False)] = "id_cal"
    rest = np.flatnonzero(roles == "id_train")
    clusters = _clusters(molecules.take(rest), settings, f"--id_file {settings.id_file}")
    roles[rest[_validating(clusters, rng)]] = "id_val"
    domains = np.array(molecules["domain"].to_pylist(), dtype=object)
    if settings.domain_column is None:
        domains[rest] = [f"cluster {cluster}" for cluster in clusters]
    return _with_columns(molecules, roles, domains, np.full(len(roles), -1))


def _with_ood_roles(molecules: pa.Table, settings: TrainSettings, ood: str) -> pa.Table:
    rng = np.random.default_rng([settings.data_seed, molecules.num_rows, 1])
    clusters = _clusters(molecules, settings, f"--ood {ood}")
    folds = np.zeros(molecules.num_rows, dtype=int)
    if ood == "library":  # by whole clusters, so that a fold's molecules are new to the other
        folds = _dealt(clusters, rng)
    roles = np.full(molecules.num_rows, "ood_train", dtype=object)
    for fold in np.unique(folds):
        rows = np.flatnonzero(folds == fold)
        roles[rows[_validating(clusters[rows], rng)]] = "ood_val"
    domains = np.array([f"cluster {cluster}" for cluster in clusters], dtype=object)
    return _with_columns(molecules, roles, domains, folds)


def _dealt(clusters: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each molecule's fold (n,): clusters by size, dealt there and back, so folds are alike."""
    sizes = np.bincount(clusters)
    there = rng.permutation(FOLDS)
    there_and_back = np.concatenate([there, there[::-1]])
    fold_of = np.empty(len(sizes), int)
    fold_of[np.argsort(-sizes, kind="stable")] = np.resize(there_and_back, len(sizes))
    return fold_of[clusters]


def _clusters(molecules: pa.Table, settings: TrainSettings, whose: str) -> np.ndarray:
    """Each molecule's cluster of similar ones: (n,). InputError if nearly all are alike."""
    count = max(LEAST_CLUSTERS, min(CLUSTERS, molecules.num_rows // LEAST_A_CLUSTER))
    kind = kind_of_views(settings.view_names)
    found = at_most(molecules["smiles"].to_pylist(), count, settings.data_seed, kind)
    if found.max() + 1 < LEAST_CLUSTERS:
        raise InputError(
            f"{whose}: {molecules.num_rows:,} molecules have {found.max() + 1} different "
            f"fingerprints, too few to validate on molecules unlike those trained on; give at "
            f"least {LEAST_CLUSTERS} kinds"
        )
    return found


def _validating(clusters: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Whether each molecule validates: whole clusters, a fifth of all; at least one, never all."""
    names, sizes = np.unique(clusters, return_counts=True)
    order = rng.permutation(len(names))
    chosen, taken = [], 0
    for place in order:
        if taken + sizes[place] <= VALIDATION_SHARE * len(clusters):
            chosen.append(names[place])
            taken += sizes[place]
    return np.isin(clusters, chosen or [names[np.argmin(sizes)]])


def _with_columns(
    molecules: pa.Table, roles: np.ndarray, domains: np.ndarray, folds: np.ndarray
) -> pa.Table:
    place = molecules.column_names.index("domain")
    molecules = molecules.set_column(place, "domain", pa.array(domains.tolist(), pa.string()))
    molecules = molecules.append_column("role", pa.array(roles.tolist(), pa.string()))
    return molecules.append_column("fold", pa.array(folds, pa.int64()))
