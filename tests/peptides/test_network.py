"""The model: padding and hidden structures change nothing, and the decoder stands noise."""

import numpy as np
import pytest
import torch

from pipeline.peptides.diffusion.decoder import Decoder, decoded, decoding_loss, right_count
from pipeline.peptides.diffusion.network import PeptideDenoiser

COLUMNS, SEEN = 6, 5


@pytest.fixture(scope="module")
def denoiser():
    """With structures, and no zeros that would hide a fault."""
    torch.manual_seed(0)
    made = PeptideDenoiser(COLUMNS, 2, width=16, blocks=2, heads=2, structure_columns=SEEN)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return made.eval()


def peptides(lengths, longest, seed=0):
    """Noisy latents, a guess, which places are residues, and structures."""
    drawn = torch.Generator().manual_seed(seed)
    real = torch.arange(longest) < torch.tensor(lengths)[:, None]
    rows = [
        torch.cat([torch.randn(2 * COLUMNS + SEEN, generator=drawn)[None] for _ in range(n)])
        for n in lengths
    ]
    padded = torch.full((len(lengths), longest, 2 * COLUMNS + SEEN), 9.0)
    for place, row in enumerate(rows):
        padded[place, : len(row)] = row
    noisy, guess, structure = padded.split([COLUMNS, COLUMNS, SEEN], dim=-1)
    return noisy, guess, real, structure


STEPS, CLASSES, KNOWN = torch.tensor([3, 30]), torch.tensor([0, 2]), torch.tensor([True, False])


def test_padding_and_neighbours_in_a_batch_change_nothing(denoiser):
    def told(rows, longest):
        noisy, guess, real, structure = (part[rows] for part in peptides([4, 7], longest))
        with torch.no_grad():
            return denoiser(noisy, guess, real, STEPS[rows], CLASSES[rows], structure, KNOWN[rows])

    short, long = told(slice(0, 2), 7), told(slice(0, 2), 12)
    for row, length in enumerate((4, 7)):
        torch.testing.assert_close(short[row, :length], long[row, :length])
        alone = told(slice(row, row + 1), 9)
        torch.testing.assert_close(alone[0, :length], short[row, :length])


def test_a_hidden_structure_is_as_none_and_a_known_one_is_seen(denoiser):
    noisy, guess, real, structure = peptides([4, 7], 7)
    with torch.no_grad():
        seen = denoiser(noisy, guess, real, STEPS, CLASSES, structure, KNOWN)
        none = denoiser(noisy, guess, real, STEPS, CLASSES)
    torch.testing.assert_close(seen[1], none[1])
    assert (seen[0, :4] - none[0, :4]).abs().min() > 1e-4


def test_step_class_guess_and_place_all_count(denoiser):
    noisy, guess, real, _ = peptides([4, 7], 7)
    with torch.no_grad():
        plain = denoiser(noisy, guess, real, STEPS, CLASSES)
        others = (
            denoiser(noisy, guess, real, STEPS + 1, CLASSES),
            denoiser(noisy, guess, real, STEPS, torch.tensor([1, 1])),
            denoiser(noisy, guess + 1, real, STEPS, CLASSES),
            denoiser(noisy[:, :1].expand_as(noisy), guess, real, STEPS, CLASSES),
        )
    assert all((other[real] - plain[real]).abs().max() > 1e-3 for other in others)
    assert (others[-1][1, 0] - others[-1][1, 1]).abs().max() > 1e-4  # same latents, other places


def test_the_decoder_sees_real_residues_alone(made_up):
    torch.manual_seed(0)
    decoder, (train, _, _) = Decoder(train_columns(made_up)), made_up
    padded = train.padded(np.arange(6), 24)
    latents, real = torch.from_numpy(padded.latents).float(), torch.from_numpy(padded.real)
    filled = torch.where(real[..., None], latents, 7.0)
    with torch.no_grad():
        torch.testing.assert_close(decoder(filled, real)[real], decoder(latents, real)[real])
        alone = decoded(decoder, latents[2:3, : train.lengths[2]], real[2:3, : train.lengths[2]])
        assert alone.sequences[0] == decoded(decoder, filled, real).sequences[2]
        assert len(alone.sequences[0]) == train.lengths[2]
        assert 0 < float(alone.confidence[0]) < 1


def train_columns(made_up):
    """Columns of a latent."""
    return made_up[0].latents.shape[1]


def test_the_decoders_loss_is_torchs_over_real_residues(made_up):
    torch.manual_seed(0)
    decoder, (train, _, _) = Decoder(train_columns(made_up)), made_up
    padded = train.padded(np.arange(5), 32)
    latents, tokens, real = (torch.from_numpy(part) for part in padded[:3])
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(1))
    loss = decoding_loss(decoder, latents.float(), tokens.long(), real, noise)
    logits = decoder(latents.float() + noise, real)
    right = logits[real].log_softmax(-1).gather(1, tokens[real].long()[:, None])
    torch.testing.assert_close(loss, -right.sum(), rtol=1e-4, atol=1e-3)
    told = right_count(decoder, latents.float() + noise, tokens, real)
    assert told == int((logits[real].argmax(-1) == tokens[real]).sum())


def test_what_was_trained_tells_residues_from_noisy_latents(trained):
    best = trained[0].at_best
    assert best["decoder_right_0"] > 0.97
    assert best["decoder_right_0.25"] > 0.9 > best["decoder_right_1"] > 0.3
