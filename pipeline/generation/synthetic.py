"""Features of ID molecules in, features just beyond them out: OOD data where there is none.

Features of training molecules are noised and denoised again by a diffusion model of them, and
those in a conformal shell (`shell.py`) are kept. Outliers by diffusion are those of Du et al.,
Dream the Impossible, 2023; features of low likelihood those of VOS (Du et al. 2022), and far
neighbours those of NPOS (Tao et al. 2023).
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import asdict

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.generation.diffusion.fitting import Classed, fit_generator
from pipeline.generation.diffusion.generator import Generator
from pipeline.generation.diffusion.noise import steps_of
from pipeline.generation.diffusion.sampling import redraw
from pipeline.generation.settings import GeneratorSettings, ShellSettings
from pipeline.generation.shell import ROLES, Candidates, Sample, Shell, Synthetic, in_shell
from pipeline.runtime.errors import DamagedFile
from pipeline.runtime.files import parquet_bytes, read_parquet, write_atomically
from pipeline.runtime.train.ray_train import run_name
from pipeline.store.keyed_table import feature_matrix, features_table

log = logging.getLogger(__name__)

FILE = "synthetic_ood.parquet"
NAME, REPORT = b"made_by", b"report"  # in the file's metadata
OF_TRAINING = ("parameters", "best_step", "train_time_seconds")  # of a generator
DRAWN = 2**31 + 3  # beside the seed: noise that nothing else has


def synthetic_ood(
    train: np.ndarray,
    held_out: np.ndarray,
    count: int,
    settings: ShellSettings,
    seed: int,
    folder: str,
    device: str = "cpu",
) -> Synthetic:
    """Train a generator of features, and draw from it what lies just beyond them.

    A run that was killed continues when it is started again, and what it had drawn is taken over.

    Parameters
    ----------
    train : (n, d) float32, standardised features of ID molecules.
    held_out : (m, d) of others. They set the shell and choose the generator's step: nothing may be
        calibrated by them afterwards.
    count : rows to make.
    folder : the sample (`FILE`) and the generator's curves are written to it.
    device : "cpu" or "cuda".

    Raises
    ------
    InputError
        If too few are held out, too few rows are found, or diffusers is missing.
    """
    of_generator = generator_settings(settings, seed)
    digest = hashlib.blake2b(train.tobytes() + held_out.tobytes(), digest_size=16).hexdigest()
    name = run_name(settings, (), asdict(of_generator), count, digest)
    kept = _read(folder, name)
    if kept is not None:
        log.info("synthetic OOD: taken over from %s/%s", folder, FILE)
        return kept
    shell = Shell.fit(train, held_out, settings)
    fitted = fit_generator(
        *(Classed(rows, np.zeros(len(rows), np.int64)) for rows in (train, held_out)),
        ("ID",), of_generator, folder, device,
    )  # fmt: skip

    def propose(sources: np.ndarray, numbers: tuple[int, ...]) -> Candidates:
        noise = (seed, DRAWN, *numbers)
        return diffused(fitted.generator, sources, settings.most_temperature, noise, device)

    made = in_shell(train, shell, count, propose, settings.max_attempts, seed)
    told = {
        "losses": fitted.losses, "better_than_linear": fitted.better_than_linear,
        **{name: fitted.outcome[name] for name in OF_TRAINING},
    }  # fmt: skip
    made = Synthetic(made.train, made.validation, {**made.report, "generator": told})
    _write(made, folder, name)
    fitted.forget()
    return made


def generator_settings(settings: ShellSettings, seed: int) -> GeneratorSettings:
    """Of the generator of ID features.

    They are not whitened: of few rows, the last components of new ones are nothing like those of
    training ones, and a shell of distances goes by the first.
    """
    return GeneratorSettings(
        whiten="off", width=settings.width, batch_size=settings.batch_size, steps=settings.steps,
        sampler="ddim", sampling_steps=settings.sampling_steps, class_dropout=0.0, seed=seed,
    )  # fmt: skip


def diffused(
    generator: Generator, sources: np.ndarray, most_temperature: float, seed: tuple[int, ...],
    device: str = "cpu",
) -> Candidates:  # fmt: skip
    """Features (n, d) noised, each up to a step and by a temperature of its own, and denoised."""
    rng = np.random.default_rng(seed)
    steps = rng.choice(steps_of(generator.settings), len(sources))
    temperatures = rng.uniform(1, most_temperature, len(sources))
    classes = np.zeros(len(sources), np.int64)
    return Candidates(redraw(generator, sources, classes, steps, temperatures, seed, device), steps)


def _write(made: Synthetic, folder: str, name: str) -> None:
    """The sample: `role`, `p_value`, `step` and `features` of each row."""
    samples = (made.train, made.validation)
    roles = np.repeat(ROLES, [len(sample.p_values) for sample in samples])
    features, p_values, steps = map(np.concatenate, zip(*samples))
    table = features_table(roles.tolist(), features).rename_columns(["role", "features"])
    table = table.add_column(1, "p_value", pa.array(p_values))
    table = table.add_column(2, "step", pa.array(steps))
    table = table.replace_schema_metadata({NAME: name, REPORT: json.dumps(made.report)})
    write_atomically(f"{folder}/{FILE}", parquet_bytes(table))


def _read(folder: str, name: str) -> Synthetic | None:
    """What a run of this name wrote; None if there is nothing, of another run, or damaged."""
    fs, path = fsspec.url_to_fs(f"{folder}/{FILE}")
    if not fs.exists(path):
        return None
    try:
        table = read_parquet(fs, path)
    except DamagedFile as error:
        log.warning("%s; it is made again", error)
        return None
    metadata = table.schema.metadata or {}
    if metadata.get(NAME) != name.encode():
        return None
    samples = []
    for role in ROLES:
        rows = table.filter(pc.equal(table["role"], role))
        columns = (rows[each].to_numpy() for each in ("p_value", "step"))
        samples.append(Sample(feature_matrix(rows), *columns))
    return Synthetic(*samples, json.loads(metadata[REPORT]))
