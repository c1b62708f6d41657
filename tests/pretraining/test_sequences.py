"""jobs.pretrain on sequences: what the model sees and learns, and the folder that it leaves."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import ray
import ray.train
import torch
from transformers import AutoTokenizer, EsmForMaskedLM, EsmModel

from bench.mini_protein.card import NOT_TOLD, card, command
from jobs.cli import parse
from jobs.pretrain import pretrain
from pipeline.encoders.esm.tokens import CLS, EOS, MASK, token_ids
from pipeline.molecules.sequences import sequence_key
from pipeline.pretraining.sequences import loop
from pipeline.pretraining.sequences.crops import Proteins
from pipeline.pretraining.sequences.loop import SequenceJob, SequenceState
from pipeline.pretraining.sequences.model import loss_sums, new_model
from pipeline.pretraining.sequences.run import cut
from pipeline.pretraining.settings import PretrainSettings
from pipeline.runtime.errors import InputError

SIZES = {"layers": 2, "width": 16, "ffn_width": 32, "heads": 2, "context": 66, "crop_length": 40}
KINDS = "AKRL", "DEGS"  # letters of the two kinds of proteins that there are


@pytest.fixture(scope="module")
def sequences() -> list[str]:
    """120 proteins, of which each residue tells which letters the others may be."""
    rng = np.random.default_rng(0)
    return ["".join(rng.choice(list(KINDS[i % 2]), rng.integers(30, 100))) for i in range(120)]


@pytest.fixture(scope="module")
def home(ray_session, in_process, sequences, tmp_path_factory) -> Path:
    """A folder with them as FASTA, a row that is none, and the first twenty to be left out."""
    folder = tmp_path_factory.mktemp("pretrain")
    records = [f">P{i} protein\n{text}" for i, text in enumerate([*sequences, "AC1", "akrl*"])]
    (folder / "proteins.fasta").write_text("\n".join(records))
    (folder / "left_out.fa").write_text("\n".join(records[:20]))
    (folder / "left_out.csv").write_text("\n".join(["id", *(f"P{i}" for i in range(20))]))
    (folder / "foreign.csv").write_text("id\nQ1\n")
    return folder


def settings_of(home: Path, output: str, **changes) -> PretrainSettings:
    return PretrainSettings(
        **{
            **SIZES, "data_file": str(home / "proteins.fasta"), "output_dir": str(home / output),
            "device": "cpu", "precision": "fp32", "epochs": 12, "batch_tokens": 1000, "lr": 1e-2,
            "tokens_at_once": 600, "holdout_size": 20, "checkpoint_every": 60,
            "exclude_file": str(home / "left_out.fa"), "weights_precision": "fp16", **changes,
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(home) -> SimpleNamespace:
    settings = settings_of(home, "run")
    pretrain(settings)
    read = lambda name: json.loads((home / "run" / name).read_text())  # noqa: E731
    return SimpleNamespace(
        settings=settings, folder=home / "run", metrics=read("metrics.json"),
        stats=read("pretraining_stats.json"),
    )  # fmt: skip


def test_it_tells_more_than_what_each_residue_is_worth_by_itself(run):
    told = run.metrics["heldout"]
    # four letters are likely where eight are, so that half of what is unknown can be told
    assert told["untrained"]["perplexity"] > 25
    assert told["unigram"]["perplexity"] == pytest.approx(8, rel=0.1)
    assert told["neighbours"]["perplexity"] == pytest.approx(4, rel=0.1)
    assert told["model"]["perplexity"] < 5
    assert told["model"]["perplexity"] == pytest.approx(np.exp(told["model"]["cross_entropy"]))


def test_every_row_is_accounted_for(run):
    stats = run.stats
    assert (stats["rows_in"], stats["rejected"], stats["excluded"]) == (122, 21, 20)
    assert stats["sequences_trained_on"] + stats["sequences_held_out"] == stats["rows_kept"] == 101
    assert stats["sequences_held_out"] == 20
    rejected = pq.read_table(run.folder / "rejected.parquet").to_pylist()
    assert sorted(row["id"] for row in rejected) == sorted([*(f"P{i}" for i in range(20)), "P120"])
    assert {row["reason"] for row in rejected if row["stage"] == "exclude"} == {
        "is in --exclude_file"
    }
    assert {"model", "metrics.json", "pretraining_curves.csv", "pretraining_curves.png"} <= {
        path.name for path in run.folder.iterdir()
    }


def test_transformers_reads_the_folder_and_says_the_same(run, sequences, one_worker):
    folder = run.folder / "model"
    model = EsmForMaskedLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for sequence in sequences[:3]:
        assert tokenizer(sequence)["input_ids"] == token_ids(sequence).tolist()
    embedded = EsmModel.from_pretrained(folder, add_pooling_layer=False, dtype=torch.float32).eval()
    ids = torch.tensor(token_ids(sequences[5]))[None]
    with torch.no_grad():
        expected = model.esm(ids).last_hidden_state
        torch.testing.assert_close(embedded(ids).last_hidden_state, expected)
    # what the job says of the file is what the file says: the held-out loss, made again from it
    assert (run.folder / "model" / "model.safetensors").stat().st_size < 60_000
    state = state_of(run.settings, run.folder / "model", sequences)
    again = state.held_out()["heldout_loss"]
    assert again == pytest.approx(run.metrics["heldout"]["model"]["cross_entropy"], abs=1e-6)


def state_of(settings: PretrainSettings, folder: Path, sequences: list[str]) -> SequenceState:
    """A state with the proteins that a run held out, and the weights that it wrote."""
    kept = sorted({*sequences[20:], "AKRL"}, key=sequence_key)
    job = SequenceJob(settings, ray.put(cut(kept, settings)))
    state = SequenceState(job, torch.device("cpu"))
    state.model = EsmForMaskedLM.from_pretrained(folder, dtype=torch.float32)
    return state


def test_the_model_card_has_the_runs_figures_and_a_command_that_gives_it_again(run):
    weights = run.folder / "model" / "model.safetensors"
    tests = {
        "esm, mini-protein": {"aupr": [0.4, 0.3, 0.5], "esm less this": None},
        "esm, untrained": {
            "aupr": [0.35, 0.25, 0.45], "esm less this": {"aupr": [0.05, 0.01, 0.09]}
        },
    }  # fmt: skip
    found = {"dna": {"tests": {"Test_9": tests}}}
    text = card(run.stats, {"contained": 20, "in all": 21, "of": 122}, found, weights)
    row = "Test_9: AUPR | 0.400 [0.300, 0.500] | 0.350 [0.250, 0.450] | +0.050 [+0.010, +0.090] |"
    assert row in text
    assert hashlib.sha256(weights.read_bytes()).hexdigest() in text
    assert f"| {run.metrics['heldout']['model']['perplexity']:.3f} |" in text
    assert "| contained | 20 |" in text and "1 have letters other than the twenty, 1 of" in text
    words = command(run.stats["settings"]).replace("\\\n", " ").split()
    again = parse(PretrainSettings, "jobs.pretrain", words[3:])
    unlike = {name for name, value in vars(again).items() if value != getattr(run.settings, name)}
    assert unlike <= set(NOT_TOLD)
    with pytest.raises(SystemExit, match="the counts"):
        card(run.stats, {"contained": 20, "in all": 19, "of": 122}, {}, weights)


@pytest.fixture
def one_worker(monkeypatch):
    monkeypatch.setattr(ray.train, "get_context", lambda: SimpleNamespace(get_world_rank=lambda: 0))
    monkeypatch.setattr(ray.train, "get_checkpoint", lambda: None)


def small_state(settings: PretrainSettings, sequences: list[str]) -> SequenceState:
    proteins = Proteins(sequences[:40]), Proteins(sequences[40:50])
    return SequenceState(SequenceJob(settings, ray.put(proteins)), torch.device("cpu"))


def test_a_resumed_run_comes_to_the_same_weights(home, sequences, one_worker, monkeypatch,
                                                 tmp_path):  # fmt: skip
    settings = replace(settings_of(home, "none"), dropout=0.1, epochs=2)
    states = [small_state(settings, sequences) for _ in range(2)]
    half = states[0].steps_an_epoch - 1  # so that what follows crosses into another epoch
    states[0].run(half)
    torch.save(states[0].content(), tmp_path / "state.pt")
    checkpoint = ray.train.Checkpoint.from_directory(str(tmp_path))
    monkeypatch.setattr(ray.train, "get_checkpoint", lambda: checkpoint)
    assert states[1].resume() == half
    for state in states:
        state.run(state.steps)
    tensors = states[0].model.state_dict()
    assert states[0].residues_seen == states[1].residues_seen > 0
    for name, tensor in states[1].model.state_dict().items():
        assert torch.equal(tensor, tensors[name]), name


def test_shares_of_workers_add_up_to_one_workers_gradient(home, sequences, one_worker, monkeypatch):
    settings = replace(settings_of(home, "none"), grad_clip=1e9)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor: tensor)

    def gradients(rank: int, world: int, told: int | None = None, **changes) -> list[torch.Tensor]:
        monkeypatch.setattr(loop, "rank", lambda: rank)
        monkeypatch.setattr(loop, "world", lambda: world)
        if told is not None:  # what all workers have to tell, as the sum over them would say
            monkeypatch.setattr(loop, "over_workers", lambda values, device: torch.full_like(
                values, told) if values.dim() == 0 else values)  # fmt: skip
        state = small_state(replace(settings, **changes), sequences)
        parts, steps = state._of_epoch(0)
        batches = state.train_set.masked(parts, steps[0], 0, 10**6)
        state.one_step()
        grads = [p.grad for p in state.model.parameters() if p.grad is not None]
        return grads, sum(int(batch.masked.sum()) for batch in batches)

    whole, told = gradients(0, 1)
    in_pieces, _ = gradients(0, 1, tokens_at_once=100)
    shares = [gradients(rank, 3, told)[0] for rank in range(3)]
    for one, pieces, *others in zip(whole, in_pieces, *shares):
        torch.testing.assert_close(pieces, one, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(sum(others), one, rtol=1e-4, atol=1e-6)


def test_the_loss_is_transformers_own(home, sequences, one_worker):
    state = small_state(settings_of(home, "none"), sequences)
    model = new_model(state.settings).eval()
    parts, steps = state._of_epoch(0)
    batch = next(state.train_set.masked(parts, steps[0], 0, 2000))
    assert (batch.tokens == MASK).any() and not batch.real.all()
    labels = batch.true_tokens.masked_fill(~batch.masked, -100)
    with torch.no_grad():
        theirs = model(batch.tokens, attention_mask=batch.real.long(), labels=labels)
        sums = loss_sums(model, batch)
        hidden = batch.masked & (batch.tokens == MASK)
        judged = model(
            batch.tokens, attention_mask=batch.real.long(),
            labels=batch.true_tokens.masked_fill(~hidden, -100),
        )  # fmt: skip
    assert (sums.loss / sums.told).item() == pytest.approx(theirs.loss.item(), rel=1e-5)
    assert (sums.hidden_loss / sums.hidden).item() == pytest.approx(judged.loss.item(), rel=1e-5)
    assert sums.hidden == hidden.sum() < sums.told
    assert sums.hits == ((theirs.logits.argmax(dim=2) == batch.true_tokens) & hidden).sum()


def test_nothing_that_a_model_is_judged_by_is_to_be_seen(home, sequences, one_worker):
    # else one that has learnt nothing but where it is asked would tell a tenth of it
    state = small_state(settings_of(home, "none"), sequences)
    (batch,) = state.holdout.masked(state.holdout.one_part_each(), np.arange(10), 0, 10**6)
    assert batch.masked.sum() > 50 and (batch.tokens[batch.masked] == MASK).all()


def test_bf16_computes_nearly_the_same(home, sequences, one_worker):
    losses = {}
    for precision in ("fp32", "bf16"):
        state = small_state(settings_of(home, "none", precision=precision), sequences)
        losses[precision] = state.one_step()["loss"]
        assert all(p.dtype == torch.float32 for p in state.model.parameters())
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.01)
    assert losses["bf16"] != losses["fp32"]


def test_a_loss_that_is_no_number_names_the_learning_rate(home, sequences, one_worker):
    settings = settings_of(home, "none", lr=1e25, grad_clip=1e9, warmup_share=0)
    state = small_state(settings, sequences)
    with pytest.raises(InputError, match=r"the held-out loss is nan after 3 steps; lower --lr"):
        state.run(3)


def test_parts_have_ends_only_where_their_protein_has(sequences):
    proteins = Proteins(sequences[:3])
    whole = proteins.tokens(1, 0, len(sequences[1]))
    np.testing.assert_array_equal(whole, token_ids(sequences[1]))
    part = proteins.tokens(1, 3, 10)
    np.testing.assert_array_equal(part, whole[4:14])
    assert proteins.tokens(2, 0, 5)[0] == CLS and EOS not in proteins.tokens(2, 0, 5)
    last = proteins.tokens(0, len(sequences[0]) - 4, 4)
    assert last[-1] == EOS and CLS not in last and len(last) == 5


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"heads": 3}, "--heads 3 does not divide --width 16"),
        ({"heads": 16}, "rotary positions need an even width of each head"),
        ({"crop_length": 65}, "--crop_length 65 is longer than the residues of --context 66"),
        ({"coordinate_noise": 2.0}, "--coordinate_noise is a setting of Uni-Mol, but .* sequences"),
        ({"batch_size": 8}, "--batch_size is a setting of Uni-Mol"),
    ],
)
def test_settings_that_cannot_be_are_told(home, changes, message):
    with pytest.raises(InputError, match=message):
        settings_of(home, "bad", **changes)


def test_what_cannot_be_trained_on_is_told(home):
    with pytest.raises(InputError, match="--crop_length is a setting of an ESM-2"):
        PretrainSettings(data_file="a.csv", crop_length=30)
    with pytest.raises(InputError, match="holds sequences, of which --foundation_model unimol"):
        pretrain(
            PretrainSettings(data_file=str(home / "proteins.fasta"), foundation_model="unimol")
        )
    with pytest.raises(InputError, match="101 sequences are left, and --holdout_size 101"):
        pretrain(settings_of(home, "bad", holdout_size=101,
                             exclude_file=str(home / "left_out.csv")))  # fmt: skip
    with pytest.raises(InputError, match="none of its 1 ids is one of .*proteins.fasta, such as"):
        pretrain(settings_of(home, "bad", exclude_file=str(home / "foreign.csv")))
