"""What finetuning made of an encoder: its trained tensors, in a checkpoint's own file."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import Any

import safetensors.torch
from torch import Tensor

from pipeline.encoders.unimol.finetuning.adapters import Adapters, add_adapters, merge_adapters
from pipeline.encoders.unimol.model import UniMol
from pipeline.runtime.errors import InputError
from pipeline.store.checkpoint_folder import read_config, read_member, told_as_one_line

ENCODER = "encoder.safetensors"


@dataclass(frozen=True)
class FinetunedEncoder:
    """What finetuning made of an encoder: the trained tensors, and what they belong to.

    Attributes
    ----------
    tensors : by the names that `open_for_training` gives them.
    adapters : of the plan.
    base_weights : what the training run's --weights named.
    base_sha256 : the SHA-256 of those weights.
    token_order : what the training run's --token_order named.
    sha256 : that of the trained tensors' file.
    """

    tensors: dict[str, Tensor]
    adapters: Adapters | None
    base_weights: str | None
    base_sha256: str
    token_order: str
    sha256: str

    @property
    def config(self) -> dict[str, Any]:
        """Everything but the tensors, JSON-ready; `of` reads it back."""
        adapters = None if self.adapters is None else asdict(self.adapters)
        return {
            "adapters": adapters,
            "base_weights": self.base_weights,
            "base_sha256": self.base_sha256,
            "token_order": self.token_order,
            "sha256": self.sha256,
        }

    @classmethod
    def of(cls, config: dict[str, Any], tensors: dict[str, Tensor]) -> FinetunedEncoder:
        """From a checkpoint's config and tensors."""
        adapters = config["adapters"]
        if adapters is not None:
            adapters = Adapters(**{**adapters, "modules": tuple(adapters["modules"])})
        return cls(tensors, **{**config, "adapters": adapters})

    def identity_over(self, base: dict[str, Any]) -> dict[str, Any]:
        """The identity of the finetuned encoder, given that of its base; errors as `apply`."""
        self._check_base(base["weights_sha256"])
        label = f"{base['weights']}, finetuned"
        return {**base, "weights": label, "finetuned_sha256": self.sha256}

    def apply(self, model: UniMol, weights_sha256: str) -> None:
        """Give a model that holds the base weights the trained tensors, adapters merged.

        Raises
        ------
        InputError
            If the weights are not those that were finetuned, or a tensor does not fit.
        """
        self._check_base(weights_sha256)
        try:
            if self.adapters is not None:
                add_adapters(model, self.adapters)
            _, unknown = model.load_state_dict(self.tensors, strict=False)
        except (RuntimeError, AttributeError, TypeError, ValueError, ArithmeticError) as error:
            raise InputError(f"the finetuned tensors do not fit: {error}") from None
        if unknown:
            raise InputError(f"the finetuned tensors do not fit: no {', '.join(unknown[:3])}")
        if self.adapters is not None:
            merge_adapters(model, self.adapters)
        model.eval().requires_grad_(False)

    def _check_base(self, weights_sha256: str) -> None:
        if weights_sha256 != self.base_sha256:
            raise InputError(
                f"the checkpoint was finetuned from weights with the SHA-256 {self.base_sha256}, "
                f"those given have {weights_sha256}; give the former with --weights"
            )


def finetuned_of(tensors: dict[str, Tensor], **made_of: Any) -> FinetunedEncoder:
    """A finetuned encoder under the SHA-256 that its file in a checkpoint will have.

    Parameters
    ----------
    **made_of : the other attributes of `FinetunedEncoder`.
    """
    sha256 = hashlib.sha256(safetensors.torch.save(tensors)).hexdigest()
    return FinetunedEncoder(tensors, **made_of, sha256=sha256)


def read_finetuned(folder: str) -> FinetunedEncoder:
    """What finetuning made of the encoder, from a checkpoint folder.

    Raises
    ------
    InputError
        As `load_checkpoint`; also if only a head was trained, or the file has been changed.
    """
    folder = folder.rstrip("/")
    with told_as_one_line("finetuned", folder):
        config = read_config(folder)
        if "finetuned" not in config:
            raise KeyError("of a finetuned encoder: only a head was trained")
        content = read_member(folder, ENCODER)
        if hashlib.sha256(content).hexdigest() != config["finetuned"]["sha256"]:
            raise KeyError(f"{ENCODER} is not the file that config.json describes")
        return FinetunedEncoder.of(config["finetuned"], safetensors.torch.load(content))
