"""Settings of jobs.train."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from pipeline.detectors.settings import DetectorSettings
from pipeline.encoding.settings import EncodedSourceSettings
from pipeline.encoding.views import view_names
from pipeline.molecules.settings import SamplingSettings
from pipeline.runtime.settings import OptimizerSettings, OutputSettings, Settings, bounded
from pipeline.store.settings import StoreSettings

DetectorName = Literal[
    "auto", "dpo", "bce", "mse", "hinge", "energy_oe", "oe_mahalanobis", "oe_knn", "distance_lr",
    "mahalanobis", "knn", "lof", "isolation_forest", "tanimoto",
    "msp", "odin", "energy", "mc_dropout", "ensemble",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class FinetuneSettings(Settings):
    """Training of the encoder's last layers with the head."""

    finetune_encoder: bool = False
    """Train the encoder's open layers with the head, on the stored activations below them."""
    freeze_layers: str = "0-12"
    """Layers of the encoder that stay fixed: ranges and numbers as 0-12 or 0-9,11, or none."""
    trainable: Literal["all", "attention", "ffn", "norm"] = "all"
    """What is trained within the open layers."""
    encoder_lr: float = bounded(5e-6, above=0)
    """Learning rate of the encoder's layers."""
    encoder_dropout: float = bounded(0.1, least=0, below=1)
    """Dropout in the open layers."""
    adapter: Literal["none", "lora"] = "none"
    """lora: keep the layers' matrices and train low-rank updates of them."""
    lora_rank: int = bounded(8, least=1)
    """Rank of the updates."""
    lora_alpha: float = bounded(16.0, above=0)
    """Scale of the updates: they are multiplied by alpha / rank."""
    lora_layers: str | None = None
    """Layers with updates, frozen ones among them; default: the open layers."""
    trunk_cache: Literal["auto", "on", "off"] = "auto"
    """Keep the activations below the open layers in the store; auto: if they fit --trunk_gb."""
    trunk_precision: Literal["bf16", "fp32"] = "bf16"
    """Precision that the activations' pair tensor is kept in."""
    trunk_gb: float | None = bounded(None, least=0)
    """Space for the activations, GiB; default: half of what is free where the store is."""
    gradient_accumulation_steps: int = bounded(1, least=1)
    """Batches behind one step of the optimiser."""
    gradient_checkpointing: bool = False
    """Compute the open layers again for the gradient, so that their activations need room for one
    micro-batch at a time."""


@dataclass(frozen=True, kw_only=True)
class TrainingSetSettings(Settings):
    """A training set of one's own in place of a split file, and what is unlike it."""

    id_file: str | None = None
    """Training set of the model whose predictions are in question: a table of molecules as for
    --data_file, without splits. It is cut by clusters for validation; a random part calibrates."""
    ood: Literal["file", "library", "background", "synthetic"] | None = None
    """With --id_file, molecules unlike it to train with: those of --ood_file, a sample of
    --library, or 2,000 public ones that come with MolSieve; synthetic: no molecules, but features
    just beyond those of the training set, by a diffusion model of these; default: background, or
    file if --ood_file is given."""
    ood_file: str | None = None
    """Table of molecules unlike the training set."""
    library: str | None = None
    """Table or folder of the molecules to be scored."""
    ood_size: int = bounded(2000, least=10)
    """Molecules (or synthetic features) unlike the training set to train with at most: a seeded
    sample."""
    property_model: Literal["forest", "mlp", "gp"] = "forest"
    """With --label_column, the model whose errors are told: a random forest on ECFP4, an ensemble
    of networks on the views, or a Gaussian process with Tanimoto kernel."""
    predictions: str | None = None
    """Your own model's predictions in its place: a table with SMILES and --prediction_column, of
    the training set each made without its molecule (cross-validation), and of the library."""
    prediction_column: str = "prediction"
    """Column of --predictions."""


@dataclass(frozen=True, kw_only=True)
class TrainSettings(
    EncodedSourceSettings,
    SamplingSettings,
    TrainingSetSettings,
    DetectorSettings,
    OptimizerSettings,
    FinetuneSettings,
    OutputSettings,
):
    """Train a detector of OOD molecules, and if asked the encoder's last layers with it."""

    data_file: str | None = None
    """Split file of jobs.split, or a table with --split_column: .csv, .tsv, .txt, .parquet,
    .jsonl, .smi, .sdf, DrugOOD .json, also with .gz, .bz2, .xz, .zst; or a folder of such files. A
    local path or any fsspec URI."""
    views: str | None = None
    """Features side by side, as minimol,ecfp,descriptors,distances: encoders, and the distances
    to the nearest ID training molecules; default: that of --foundation_model alone."""
    detector: DetectorName | None = None
    """An energy head (dpo, bce, mse, hinge), or a detector that is fitted at once; auto takes the
    best on validation; default: the head with --loss."""
    epochs: int = bounded(100, least=1)
    """Passes over the training molecules at most."""
    batch_size: int | None = bounded(None, least=1)
    """ID molecules, and as many OOD molecules, in one batch over all workers; default: 4096,
    or 256 with --finetune_encoder."""
    eval_batch_size: int | None = bounded(None, least=1)
    """Molecules in one forward pass of validation; default: 2048, or 512."""
    lr_schedule: Literal["step", "cosine", "constant"] = "step"
    """How learning rates fall: by a factor every few epochs, to 0 along a cosine, or not."""
    lr_step_epochs: int = bounded(10, least=1)
    """Epochs between the decays of the step schedule."""
    lr_decay: float = bounded(0.9, above=0)
    """Factor of each decay."""
    warmup_steps: int = bounded(0, least=0)
    """Steps over which learning rates rise from 0."""
    early_stopping_patience: int = bounded(10, least=1)
    """Epochs without a better validation AUROC before training stops."""
    seed: int = bounded(42, least=0)
    """Seed of the head's weights, the order of batches and dropout."""
    num_workers: int = bounded(1, least=1)
    """Training workers; batches and loss are the same for any number (dropout masks are not)."""
    checkpoint_every: int = bounded(20, least=1)
    """Epochs between Ray Train checkpoints."""
    resident_gb: float | None = bounded(None, least=0)
    """Features, or activations, up to this many GiB stay in memory (features on the device);
    larger sets stream. Default: a fifth of the host's over all workers, and half of a GPU's."""

    @property
    def view_names(self) -> tuple[str, ...]:
        """See `pipeline.encoding.views.view_names`."""
        return view_names(self.views, self.foundation_model)

    def sized(self) -> TrainSettings:
        """With the batch sizes that were left open."""
        batch, evaluation = (256, 512) if self.finetune_encoder else (4096, 2048)
        return replace(
            self,
            batch_size=self.batch_size or batch,
            eval_batch_size=self.eval_batch_size or evaluation,
        )


@dataclass(frozen=True, kw_only=True)
class CheckpointSettings(StoreSettings, OutputSettings):
    """A trained head in use."""

    checkpoint: str
    """Checkpoint folder that jobs.train wrote."""
    weights: str | None = None
    """Where the encoder's weights are now; they must be the ones that the head was trained on."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of the encoder and the head."""
