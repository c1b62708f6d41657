"""ESMFold by batches: as the model folds one by one, whatever memory allows."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import EsmConfig
from transformers.models.esm.modeling_esmfold import EsmForProteinFolding
from transformers.models.esm.openfold_utils import residue_constants

from pipeline.encoders.unimol.batching import plan_batches
from pipeline.encoders.unimol.weights import WEIGHT_DIR_VARIABLE
from pipeline.folding.esmfold import model as model_file
from pipeline.folding.esmfold.model import LETTERS, EsmFold, Folded, folding_precision
from pipeline.folding.esmfold.weights import load_model, resolve_weights
from pipeline.runtime.errors import InputError, RowRejected
from tests.pickled_code import Bomb

SEQUENCES = ["MKTAYIAKQR", "ACDEFGHIKLMNPQRSTVWYAC", "GG", "WWWWWWHHHHHHMMMMMM", "MKXTAY"]


@pytest.fixture(scope="module")
def model(small_esmfold):
    return EsmFold(resolve_weights(str(small_esmfold)))


@pytest.fixture(scope="module")
def reference(small_esmfold):
    """Backbone and pLDDT of Cα by the model itself, one sequence at a time."""
    config = EsmConfig.from_pretrained(small_esmfold)
    config.esmfold_config.fp16_esm = False
    esmfold = EsmForProteinFolding.from_pretrained(small_esmfold, config=config).eval()

    def fold(sequence: str) -> tuple[np.ndarray, np.ndarray]:
        output = esmfold.infer(sequence)
        return output.positions[-1][0, :, :3].numpy(), output.plddt[0, :, 1].numpy()

    return fold


def folded(model: EsmFold, sequences) -> list:
    """In the order of the sequences."""
    found = {}
    for rows, structures in model.fold(sequences):
        found |= dict(zip(rows.tolist(), structures))
    assert sorted(found) == list(range(len(sequences)))
    return [found[row] for row in range(len(sequences))]


def test_batches_fold_as_the_model_folds_one_by_one(model, reference):
    lengths = [len(sequence) for sequence in SEQUENCES]
    assert len(plan_batches(lengths, model.budget)) < len(SEQUENCES)
    for sequence, found in zip(SEQUENCES, folded(model, SEQUENCES)):
        backbone, plddt = reference(sequence)
        known = np.array([letter in LETTERS for letter in sequence])
        np.testing.assert_allclose(found.backbone[known], backbone[known], atol=1e-3)
        np.testing.assert_allclose(found.plddt, plddt, atol=1e-5)


def test_of_an_unknown_residue_calpha_alone_is_told(model, reference):
    (found,) = folded(model, ["MKXTAY"])
    assert np.isnan(found.backbone[2, [0, 2]]).all()
    assert not reference("MKXTAY")[0][2].any()  # the model puts all of its atoms at the origin
    # Where the model would have put the Cα of any other residue: its frame depends on the letter,
    # but stands at Cα.
    output = model.model.infer("MKATAY")
    np.testing.assert_allclose(
        output.frames[-1][0, :, 4:].numpy(), output.positions[-1][0, :, 1].numpy(), atol=1e-4
    )


def test_letters_are_in_the_models_order():
    assert list(LETTERS) == residue_constants.restypes


def test_chunks_change_nothing(small_esmfold, model):
    chunked = EsmFold(resolve_weights(str(small_esmfold)))
    chunked.attention = 5 * 22**2  # five rows at once of the longest
    for found, expected in zip(folded(chunked, SEQUENCES), folded(model, SEQUENCES)):
        np.testing.assert_allclose(found.backbone, expected.backbone, atol=1e-3)


def test_recycles_are_those_asked_for(small_esmfold, model):
    of_config, once = (
        EsmFold(resolve_weights(str(small_esmfold)), recycles=times) for times in (1, 0)
    )  # the config's max_recycles 2 are passes: one more than recycles
    expected = folded(model, SEQUENCES[:1])[0].backbone
    np.testing.assert_allclose(folded(of_config, SEQUENCES[:1])[0].backbone, expected, atol=1e-4)
    assert abs(folded(once, SEQUENCES[:1])[0].backbone - expected).max() > 1e-2


def test_coordinates_are_float32_in_bf16(small_esmfold, model):
    lower = EsmFold(resolve_weights(str(small_esmfold)), precision="bf16")
    assert {each.dtype for each in lower.model.esm.parameters()} == {torch.bfloat16}
    frequencies, whole = (
        [buffer for name, buffer in each.model.esm.named_buffers() if name.endswith("inv_freq")]
        for each in (lower, model)
    )
    assert frequencies
    torch.testing.assert_close(frequencies, whole, rtol=0, atol=0)
    for found, expected in zip(folded(lower, SEQUENCES), folded(model, SEQUENCES)):
        bond = np.linalg.norm(found.backbone[:, 2] - found.backbone[:, 1], axis=1)  # Cα–C
        whole = np.linalg.norm(expected.backbone[:, 2] - expected.backbone[:, 1], axis=1)
        np.testing.assert_allclose(bond, whole, atol=0.02)  # the residue's own, of any fold
        assert found.plddt.dtype == np.float32
        np.testing.assert_allclose(found.plddt, expected.plddt, atol=0.05)
        rounded = torch.from_numpy(found.plddt).bfloat16().float().numpy()
        assert (rounded != found.plddt).any()


def test_long_and_short_are_apart(model, small_esmfold):
    tight = EsmFold(resolve_weights(str(small_esmfold)), pairs=4 * 10**2)
    tight.budget = replace(tight.budget, enough_tokens=1)
    sequences = ["A" * 10] * 6 + ["A" * 40] + ["A" * 5] * 3
    sizes = [
        ({len(sequences[row]) for row in rows}, len(rows)) for rows, _ in tight.fold(sequences)
    ]
    assert sizes == [({40}, 1), ({10}, 4), ({10}, 2), ({5}, 3)]


def out_of_memory_above(model: EsmFold, most_pairs: int, monkeypatch) -> list[tuple[int, int]]:
    """The model has no room for more padded pairs; what was asked of it."""
    asked, fold = [], model._folded

    def limited(sequences):
        shape = len(sequences), max(map(len, sequences))
        asked.append(shape)
        if shape[0] * shape[1] ** 2 > most_pairs:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return fold(sequences)

    monkeypatch.setattr(model, "_folded", limited)
    return asked


def test_out_of_memory_halves_batches_and_rejects_what_fits_none(small_esmfold, monkeypatch):
    model = EsmFold(resolve_weights(str(small_esmfold)))
    sequences = [*SEQUENCES, "A" * 30, *["K" * 12] * 7]
    expected = folded(model, sequences)
    asked = out_of_memory_above(model, 500, monkeypatch)
    found = folded(model, sequences)
    assert max(n for n, _ in asked) > 1 and (1, 30) in asked
    assert (
        isinstance(found[5], RowRejected) and str(found[5]) == "too long for the memory of cpu: 30"
    )
    for one, whole in zip(found[:5] + found[6:], expected[:5] + expected[6:]):
        np.testing.assert_allclose(one.backbone, whole.backbone, atol=1e-3)


def test_another_error_is_no_lack_of_memory(small_esmfold, monkeypatch):
    model = EsmFold(resolve_weights(str(small_esmfold)))

    def broken(sequences):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(model, "_folded", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        folded(model, ["AAA"])


def test_what_is_not_finite_is_rejected(small_esmfold):
    model = EsmFold(resolve_weights(str(small_esmfold)))
    with torch.no_grad():
        model.model.trunk.trunk2sm_s.bias[0] = torch.inf
    (found,) = folded(model, ["MKTAY"])
    assert isinstance(found, RowRejected) and "not finite" in str(found)
    assert not isinstance(found, Folded)


@pytest.mark.parametrize(("best", "auto"), [("bf16", "bf16"), ("fp16", "fp32"), ("fp32", "fp32")])
def test_fp16_is_never_chosen(monkeypatch, best, auto):
    monkeypatch.setattr(model_file, "default_precision", lambda device: best)
    assert folding_precision("cuda", "auto") == auto
    assert folding_precision("cuda", "bf16") == "bf16"


def copied(small_esmfold, tmp_path):
    return shutil.copytree(small_esmfold, tmp_path / "copy")


def test_weights_are_known_by_their_content(small_esmfold, tmp_path):
    folder = copied(small_esmfold, tmp_path)
    copy, first = resolve_weights(str(folder)), resolve_weights(str(small_esmfold))
    assert (copy.sha256, copy.config_sha256) == (first.sha256, first.config_sha256)
    tensors = load_file(folder / "model.safetensors")
    tensors["trunk.trunk2sm_s.bias"] += 1
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert resolve_weights(str(folder)).sha256 != first.sha256


def test_a_model_in_pickled_tensors_is_read_without_code(small_esmfold, tmp_path):
    folder = copied(small_esmfold, tmp_path)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    assert resolve_weights(str(folder)).files[0].name == "pytorch_model.bin"
    loaded = dict(load_model(resolve_weights(str(folder))).named_parameters())
    torch.testing.assert_close(
        loaded["trunk.trunk2sm_s.weight"], tensors["trunk.trunk2sm_s.weight"]
    )
    ran = tmp_path / "ran"
    torch.save({"weight": Bomb(ran)}, folder / "pytorch_model.bin")
    with pytest.raises(InputError, match="cannot be read as ESMFold"):
        load_model(resolve_weights(str(folder)))
    assert not ran.exists()


def without_a_tensor(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors.pop("lddt_head.3.weight")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def with_another_shape(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["lddt_head.3.weight"] = tensors["lddt_head.3.weight"][:, :-1].clone()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def not_folding(folder):
    config = json.loads((folder / "config.json").read_text())
    config["is_folding_model"] = False
    (folder / "config.json").write_text(json.dumps(config))


FAULTS = {
    "tensors are missing to the ESMFold .*: 1, such as lddt_head.3.weight": without_a_tensor,
    "tensors are of another shape to the ESMFold .*: 1, such as lddt": with_another_shape,
    "a model without the folding part": not_folding,
    "no model in Hugging Face's layout": lambda folder: (folder / "config.json").unlink(),
    "the folder lacks model.safetensors": lambda folder: (folder / "model.safetensors").unlink(),
    "cannot be read as ESMFold": lambda f: (f / "model.safetensors").write_bytes(b"x" * 99),
}


@pytest.mark.parametrize(("told", "spoil"), FAULTS.items())
def test_weights_that_cannot_be_used_are_told_in_one_line(small_esmfold, tmp_path, told, spoil):
    folder = copied(small_esmfold, tmp_path)
    spoil(folder)
    with pytest.raises(InputError, match=told) as error:
        load_model(resolve_weights(str(folder)))
    assert str(error.value).startswith(f"--structure_weights {folder}")


def test_without_weights_three_ways_out_are_told(monkeypatch, tmp_path, small_esmfold):
    def unreachable(*_, **__):
        raise ConnectionError("no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    monkeypatch.setenv(WEIGHT_DIR_VARIABLE, str(tmp_path))
    with pytest.raises(
        InputError, match=r"Three ways out: \(1\).*\(2\).*\(3\).*--structures folder"
    ):
        resolve_weights(None)
    with pytest.raises(InputError, match="no such folder"):
        resolve_weights(str(tmp_path / "nothing"))
    (tmp_path / "esmfold_v1").symlink_to(small_esmfold)
    assert resolve_weights(None).label == resolve_weights("facebook/esmfold_v1").label


def test_a_damaged_download_names_the_setting_to_mend_it(monkeypatch, tmp_path, small_esmfold):
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "config.json").write_bytes((small_esmfold / "config.json").read_bytes())

    def download(*_, local_files_only=False, **__):
        if local_files_only:
            raise FileNotFoundError("not in the cache")
        (cache / ("0" * 64)).write_bytes(b"cut")
        (cache / "model.safetensors").symlink_to(cache / ("0" * 64))
        return str(cache)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    monkeypatch.setenv(WEIGHT_DIR_VARIABLE, str(tmp_path / "empty"))
    with pytest.raises(InputError, match="wrong SHA-256 .* pass --structure_weights FOLDER"):
        resolve_weights(None)
