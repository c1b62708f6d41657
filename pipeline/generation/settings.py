"""Settings of jobs.generate, and of the generator wherever one is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.encoding.settings import EncodedSourceSettings
from pipeline.runtime.errors import InputError
from pipeline.runtime.settings import OptimizerSettings, OutputSettings, Settings, bounded


@dataclass(frozen=True, kw_only=True)
class DiffusionSettings(OptimizerSettings):
    """A class-conditional diffusion model of anything, its training and its sampler."""

    diffusion_steps: int = bounded(200, least=20)
    """Steps from a feature to noise."""
    noise_schedule: Literal["cosine", "linear"] = "cosine"
    """How the noise grows over the steps."""
    noise_shift: float | None = bounded(1.0, above=0, below=1000)
    """What the noise beside the signal is multiplied by at each step. Features of many columns that
    say the same are told through much noise, so that few steps of a usual schedule matter."""
    prediction: Literal["v", "epsilon"] = "v"
    """What the model tells of a noisy feature: its velocity, or its noise."""
    class_dropout: float = bounded(0.1, least=0, below=1)
    """Share of training rows whose class is hidden, which classifier-free guidance needs."""
    class_sampling: Literal["balanced", "as_is"] = "balanced"
    """Training rows: each class equally often, or as often as it is."""
    ema_decay: float = bounded(0.998, least=0, below=1)
    """Decay of the moving average of weights that samples are drawn with."""
    steps: int = bounded(3000, least=1)
    """Steps of the optimiser."""
    gradient_accumulation_steps: int = bounded(1, least=1)
    """Batches behind one step of the optimiser."""
    lr: float = bounded(1e-3, above=0)
    """Peak learning rate (AdamW); it falls linearly to 0."""
    weight_decay: float = bounded(1e-2, least=0)
    """Weight decay (AdamW), of matrices only."""
    warmup_share: float = bounded(0.03, least=0, below=1)
    """Share of the steps over which the learning rate rises from 0."""
    num_workers: int = bounded(1, least=1)
    """Training workers; batches, noise and loss are the same for any number."""
    checkpoint_every: int = bounded(250, least=1)
    """Steps between held-out losses, and between checkpoints to resume from."""
    sampler: Literal["ddpm", "ddim", "dpm++"] = "ddpm"
    """How samples are drawn: ddpm takes every diffusion step, ddim and dpm++ (DPM-Solver++) fewer
    and no fresh noise."""
    sampling_steps: int | None = bounded(None, least=2)
    """Steps of the sampler; default: all diffusion steps for ddpm, else 30."""
    guidance: float = bounded(1.0, least=0)
    """Classifier-free guidance: 1 draws from the class as it was learned, more exaggerates it."""
    seed: int = bounded(42, least=0)
    """Seed of the held-out rows, the weights, batches, noise and samples."""

    def __post_init__(self) -> None:
        super().__post_init__()
        most = self.diffusion_steps
        if self.sampling_steps is not None and self.sampling_steps > most:
            raise InputError(
                f"--sampling_steps {self.sampling_steps} is more than --diffusion_steps {most}"
            )
        if self.guidance != 1 and self.class_dropout == 0:
            raise InputError("--guidance needs --class_dropout above 0, to learn rows of any class")

    @property
    def steps_to_sample(self) -> int:
        """Steps of the sampler."""
        few = self.diffusion_steps if self.sampler == "ddpm" else min(30, self.diffusion_steps)
        return self.sampling_steps or few


@dataclass(frozen=True, kw_only=True)
class GeneratorSettings(DiffusionSettings):
    """A class-conditional diffusion model of features, its training and its sampler."""

    width: int = bounded(512, least=8)
    """Width of the model's layers."""
    blocks: int = bounded(4, least=1)
    """Residual blocks of the model, of two layers each."""
    whiten: Literal["auto", "on", "off"] = "auto"
    """Learn in whitened principal components instead of standardised features; auto: where there
    are fewer training rows than columns."""
    batch_size: int = bounded(256, least=1)
    """Rows in one batch, over all workers."""


@dataclass(frozen=True, kw_only=True)
class ShellSettings(Settings):
    """Synthetic OOD features: their generator, and how far out they lie."""

    least_p: float = bounded(0.001, least=0, below=1)
    """Least p-value by held-out ID features."""
    most_p: float = bounded(0.05, above=0, below=1)
    """Largest p-value: the share of ID features that lie as far out."""
    neighbours: int = bounded(5, least=1)
    """The distance is that to this nearest training feature."""
    most_temperature: float = bounded(1.25, least=1)
    """Noise is up to so many times as large as the generator has learned to take away."""
    width: int = bounded(256, least=8)
    """Width of the generator's layers: training sets are small, and users wait."""
    batch_size: int = bounded(128, least=1)
    """Rows in one of its batches."""
    steps: int = bounded(1500, least=1)
    """Steps of its optimiser."""
    sampling_steps: int = bounded(50, least=2)
    """Steps of its sampler (DDIM)."""
    max_attempts: int = bounded(6, least=1)
    """Rounds of candidates; what is missing then stays missing, and is told."""


@dataclass(frozen=True, kw_only=True)
class GateSettings(Settings):
    """Which of the drawn candidates are returned."""

    quality_threshold: float = bounded(0.5, least=0, below=1)
    """Least quality of a sample: the share of held-out real rows of its class that lie at least as
    far from the class's training rows; half of real rows are below 0.5."""
    sample_multiplier: float = bounded(5.0, least=1)
    """Candidates drawn for each sample that is missing."""
    max_attempts: int = bounded(3, least=1)
    """Rounds of candidates; what is missing then stays missing, and is told."""
    quality_neighbours: int = bounded(5, least=1)
    """The distance is that to this nearest training row."""


@dataclass(frozen=True, kw_only=True)
class ClassedSourceSettings(EncodedSourceSettings):
    """Rows with a class, and where their features come from."""

    class_column: str | None = None
    """Column with the class; default: the label of DrugOOD files."""
    features_column: str | None = None
    """Column of a Parquet file with a feature list in each row, used as it is; default: the file
    has molecules, and --foundation_model makes the features."""


@dataclass(frozen=True, kw_only=True)
class GenerateSettings(GeneratorSettings, GateSettings, ClassedSourceSettings, OutputSettings):
    """Train a generator of features on a table's classes, and draw samples of them."""

    num_samples: int = bounded(500, least=1)
    """Samples of each class."""
    classes: list[str] | None = None
    """Classes to draw samples of; default: all."""
    holdout_share: float = bounded(0.3, above=0, below=0.8)
    """Share of each class that is not trained on: half of it sets the scale of quality and chooses
    the step, the other half is the real sample that generated ones are compared with."""
    all_splits: bool = False
    """Learn from all rows of a file with splits; default: those of split train."""
