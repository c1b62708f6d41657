"""Every setting, typed and validated. The commands build their flags and help from here."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from pipeline.settings import Settings, bounded


@dataclass(frozen=True, kw_only=True)
class LibrarySettings(Settings):
    """Where molecules come from."""

    data_file: str
    """DrugOOD JSON (.json), CSV or TSV (.csv, .tsv), SMILES file (.smi), each also with .gz;
    Parquet (.parquet); or a folder of such files. A local path or any fsspec URI."""
    dataset: str | None = None
    """Name for reports; default: the data file's name."""
    smiles_column: str = "smiles"
    """Column of a table that holds the SMILES."""
    id_column: str | None = None
    """Column with unique ids; default: file name and row number."""


@dataclass(frozen=True, kw_only=True)
class SourceSettings(LibrarySettings):
    """Where molecules with labels or splits come from."""

    label_column: str | None = None
    """Column with a numeric label, carried along."""
    domain_column: str | None = None
    """Column with the domain (scaffold, assay, ...) that whole-domain cuts go by."""
    split_column: str | None = None
    """Column with train, iid_val, iid_test, ood_val or ood_test."""


@dataclass(frozen=True, kw_only=True)
class StoreSettings(Settings):
    """Where results are kept and found again."""

    cache_root: str = ".molsieve"
    """Folder or fsspec URI of the store of conformers and features."""
    force_recompute_cache: bool = False
    """Compute conformers and features anew even if the store has them."""
    retry_rejected: bool = False
    """Try molecules again that an earlier run rejected."""


@dataclass(frozen=True, kw_only=True)
class ConformerSettings(StoreSettings):
    """How 3D structures are made."""

    conformer_method: Literal["etkdg+mmff", "etkdg", "nvmolkit"] = "etkdg+mmff"
    """How conformers are made: ETKDG relaxed by MMFF94, as the published weights expect; ETKDG
    alone, which takes half the time; or nvmolkit, which does both on GPUs, if it is installed."""
    conformer_seed: int = bounded(42, least=0)
    """Random seed of the 3D embedding."""
    conformer_seconds: float = bounded(60.0, above=0)
    """Time that one molecule's conformer may take before the molecule is rejected."""
    conformer_gb: float = bounded(4.0, above=0)
    """Memory that one molecule's conformer may take, GiB, before the molecule is rejected."""


@dataclass(frozen=True, kw_only=True)
class EncoderSettings(ConformerSettings):
    """Which encoder makes the features, and how."""

    foundation_model: Literal["unimol", "minimol"] = "unimol"
    """Encoder: unimol (3D, needs conformers) or minimol (2D)."""
    weights: str | None = None
    """Uni-Mol checkpoint: a path, a published file's name, 'mini' for the small pretrained model
    that comes with MolSieve, or 'untrained' for seeded random weights; default:
    mol_pre_no_h_220816.pt from the weight folder or by download."""
    token_order: Literal["auto", "official", "unimol_tools"] = "auto"
    """Order of the special tokens in the checkpoint's embedding; auto finds the padding row."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Precision of the encoder's matrix products; auto: bf16 on GPUs and on CPUs with bf16
    units, else fp32."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of the encoder and the trainer; auto takes GPUs if the cluster has any."""
    finetuned: str | None = None
    """Checkpoint of jobs.train --finetune_encoder, whose layers replace those of --weights."""
    encoding_batch_size: int | None = bounded(None, least=1)
    """Upper bound on molecules in one forward pass; default: 128 on a CPU, 4096 on a GPU."""
    encoder_workers: int | None = bounded(None, least=1)
    """Encoder actors; default: one a GPU, or one a CPU core."""


@dataclass(frozen=True, kw_only=True)
class SamplingSettings(Settings):
    """Which molecules of a split file are used."""

    sampling: Literal["drugood", "good", "all"] = "drugood"
    """Molecules a split: drugood 2000 train, 600 validation, 1000 test; good 5000, 1500, 2000."""
    train_size: int | None = bounded(None, least=1)
    """ID, and as many OOD, training molecules at most; overrides --sampling."""
    val_size: int | None = bounded(None, least=1)
    """ID, and as many OOD, validation molecules at most; overrides --sampling."""
    test_size: int | None = bounded(None, least=1)
    """ID, and as many OOD, test molecules at most; overrides --sampling."""
    debug_dataset_size: int | None = bounded(None, least=1)
    """Shrink every split in proportion, so that this many ID training molecules stay."""
    data_seed: int = bounded(42, least=0)
    """Seed of the sampling and of the OOD validation cut."""
    ood_val_by: Literal["domain", "molecule"] = "domain"
    """Cut OOD validation from ood_val by whole domains (where domains exist) or by molecules."""
    allow_overlap: bool = False
    """Warn, instead of stopping, when a molecule is in two splits."""


@dataclass(frozen=True, kw_only=True)
class OutputSettings(Settings):
    """Where a command writes its results."""

    output_dir: str = "outputs"
    """Folder or fsspec URI for results."""


@dataclass(frozen=True, kw_only=True)
class EncodeSettings(SourceSettings, EncoderSettings, OutputSettings):
    """Encode molecules into the store."""


@dataclass(frozen=True, kw_only=True)
class TuneSettings(SourceSettings, EncoderSettings):
    """Find the batch sizes at which an encoder is fastest on this machine."""

    memory_gb: float | None = bounded(None, above=0)
    """Memory that one encoder may take, GiB (of the GPU, or resident on a CPU); default: all."""
    seconds: float = bounded(2.0, above=0)
    """Time that each size is tried for at least."""


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
class TrainSettings(
    SourceSettings, EncoderSettings, SamplingSettings, FinetuneSettings, OutputSettings
):
    """Train an energy head, and if asked the encoder's last layers with it."""

    loss: Literal["dpo", "bce", "mse", "hinge"] = "dpo"
    """Training loss; dpo is Energy-DPO, the others are ablations."""
    dpo_beta: float = bounded(0.1, above=0)
    """Temperature of the Energy-DPO loss."""
    lambda_reg: float = bounded(0.01, least=0)
    """Weight of the mean squared energies in every loss."""
    hinge_margin: float = bounded(1.0, least=0)
    """Margin of the hinge loss."""
    hinge_topk: float = bounded(1.0, above=0)
    """Share of the hardest pairs that the hinge loss averages over (1: all)."""
    hinge_squared: bool = False
    """Square the hinge."""
    hidden_dim: int = bounded(256, least=2)
    """Width of the head's first hidden layer; the second is half of it."""
    dropout: float = bounded(0.1, least=0, below=1)
    """Dropout in the head."""
    epochs: int = bounded(100, least=1)
    """Passes over the training molecules at most."""
    batch_size: int | None = bounded(None, least=1)
    """ID molecules, and as many OOD molecules, in one batch over all workers; default: 4096,
    or 256 with --finetune_encoder."""
    eval_batch_size: int | None = bounded(None, least=1)
    """Molecules in one forward pass of validation; default: 2048, or 512."""
    lr: float = bounded(1e-4, above=0)
    """Learning rate of the head (AdamW)."""
    weight_decay: float = bounded(1e-3, least=0)
    """Weight decay (AdamW)."""
    lr_schedule: Literal["step", "cosine", "constant"] = "step"
    """How learning rates fall: by a factor every few epochs, to 0 along a cosine, or not."""
    lr_step_epochs: int = bounded(10, least=1)
    """Epochs between the decays of the step schedule."""
    lr_decay: float = bounded(0.9, above=0)
    """Factor of each decay."""
    warmup_steps: int = bounded(0, least=0)
    """Steps over which learning rates rise from 0."""
    grad_clip: float = bounded(1.0, above=0)
    """Largest norm of the gradient."""
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

    def sized(self) -> TrainSettings:
        """With the batch sizes that were left open."""
        batch, evaluation = (256, 512) if self.finetune_encoder else (4096, 2048)
        return replace(
            self,
            batch_size=self.batch_size or batch,
            eval_batch_size=self.eval_batch_size or evaluation,
        )


@dataclass(frozen=True, kw_only=True)
class CompareSettings(TrainSettings):
    """Train with the encoder frozen and finetuned, over several seeds, and compare the two."""

    seeds: list[int] = field(default_factory=lambda: [42, 43, 44])
    """Seeds; each makes one run of either kind, and --seed is left out."""
    parallel_runs: int | None = bounded(None, least=1)
    """Runs at a time; default: as many as the cluster has GPUs for, or one for four cores."""
    bootstrap_samples: int = bounded(1000, least=100)
    """Resamples behind the 95-percent intervals."""


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings(StoreSettings, OutputSettings):
    """Evaluate a trained head on the test splits."""

    checkpoint: str
    """Checkpoint folder that jobs.train wrote."""
    test_data_file: str | None = None
    """Another data file whose iid_test and ood_test are the test set; default: the training
    run's data file."""
    smiles_column: str | None = None
    """SMILES column of --test_data_file; default: the training run's."""
    id_column: str | None = None
    """Id column of --test_data_file; default: the training run's."""
    split_column: str | None = None
    """Split column of --test_data_file; default: the training run's."""
    test_size: int | None = bounded(None, least=1)
    """ID, and as many OOD, test molecules at most; default: the training run's sampling."""
    weights: str | None = None
    """Where the encoder's weights are now; they must be the ones that the head was trained on."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of the encoder and the head."""
    eval_batch_size: int = bounded(2048, least=1)
    """Molecules in one forward pass."""
    bootstrap_samples: int = bounded(1000, least=100)
    """Resamples behind the 95-percent intervals."""
    seed: int = bounded(42, least=0)
    """Seed of the bootstrap."""
    allow_overlap: bool = False
    """Warn, instead of stopping, when a test molecule was in training."""


@dataclass(frozen=True, kw_only=True)
class SplitSettings(SourceSettings):
    """Cut a table into a DrugOOD-format split."""

    output: str
    """File to write: .json or .json.gz."""
    by: Literal["scaffold", "size", "column"] = "scaffold"
    """Domain of a molecule: its Murcko scaffold, its number of heavy atoms, or a column."""
    column: str | None = None
    """Column that holds the domain, with --by column."""
    column_order: Literal["count", "value"] = "count"
    """Order of a column's domains: most molecules first (as DrugOOD sorts assays), or
    ascending by value (years: the oldest are ID)."""
    id_fraction: float = bounded(0.6, above=0, below=1)
    """Share of molecules, by whole domains, that are in-distribution."""
    ood_val_fraction: float = bounded(0.2, above=0, below=1)
    """Share of molecules, by whole domains, that go to ood_val; the rest is ood_test."""
    max_molecules: int | None = bounded(None, least=1)
    """Split a seeded random sample of this many molecules instead of all."""
    seed: int = bounded(42, least=0)
    """Seed of the sample and of the cut within each ID domain."""
