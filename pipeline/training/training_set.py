"""A training set of the user's own, and molecules unlike it, cut into roles: `--id_file`.

`training_roles` says which of them train, validate and calibrate.
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

from pipeline.encoding.plan import check_kind
from pipeline.encoding.views import Plans, check_encoders, encoders_of, plan_views
from pipeline.molecules.folders import kind_of_source, of_file
from pipeline.molecules.formats import check_files, read_rows
from pipeline.molecules.kinds import SEQUENCE
from pipeline.molecules.rejected import REJECTED
from pipeline.molecules.sampling import sampled_rows
from pipeline.molecules.settings import SamplingSettings
from pipeline.molecules.sources import Molecules, parse_rows
from pipeline.runtime.errors import InputError
from pipeline.training.settings import TrainSettings
from pipeline.training.synthetic_ood import SYNTHETIC, check_synthetic
from pipeline.training.training_roles import with_id_roles, with_ood_roles

log = logging.getLogger(__name__)

LEAST_ID, LEAST_OOD = 50, 20
LEAST_LABELLED = 60  # of an error model, which --label_column asks for
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
        return plans, source, with_id_roles(inside.molecules, settings)
    outside, told = _outside(settings, ood, inside.molecules)
    _check_enough(f"--ood {ood}", outside.molecules, LEAST_OOD)
    sample = pa.concat_tables(
        [
            with_id_roles(inside.molecules, settings),
            with_ood_roles(outside.molecules, settings, ood),
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
