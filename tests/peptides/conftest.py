"""A small generator of made-up peptides, trained once: lysines and leucines, or the others."""

import numpy as np
import pytest

from pipeline.folding.features import WIDTH
from pipeline.folding.tables import NAME, identity, kept_rows, structure_row
from pipeline.generation.diffusion.scaling import Scaling
from pipeline.molecules.sequences import STANDARD, sequence_key
from pipeline.peptides.diffusion import fitting
from pipeline.peptides.diffusion.fitting import fit_peptides
from pipeline.peptides.diffusion.residues import Peptides, tokens_of
from pipeline.peptides.settings import PeptideGeneratorSettings
from pipeline.store.bounded import BoundedTable

SETTINGS = PeptideGeneratorSettings(
    steps=120, width=32, blocks=2, heads=2, batch_residues=256, diffusion_steps=40, lr=5e-3,
    checkpoint_every=60, ema_decay=0.95,
)  # fmt: skip
NAMES = ("KL", "other")
COLUMNS = 8


def sequences_of(count, seed):
    """Made-up peptides and their classes: of K and L alone, or of the other letters."""
    rng = np.random.default_rng(seed)
    letters = ("KL", STANDARD.replace("K", "").replace("L", ""))
    classes = np.arange(count) % 2
    texts = [
        "".join(rng.choice(list(letters[c]), size=rng.integers(5, 8 + 12 * c))) for c in classes
    ]
    return texts, classes


def latents_of(sequences):
    """Latents (r, COLUMNS) of residues end to end, as a linear map of each and the one before."""
    tokens, starts = tokens_of(sequences)
    own = np.random.default_rng(0).normal(size=(len(STANDARD), COLUMNS))
    latents = own[tokens]
    latents[1:] += 0.2 * own[tokens[:-1]]
    return latents, tokens, starts


def peptides_of(count, seed, scaling=None, structures=None):
    """Scaled peptides, and the scaling; their own where none is given."""
    texts, classes = sequences_of(count, seed)
    latents, tokens, starts = latents_of(texts)
    scaling = scaling or Scaling.fit(latents.astype(np.float32), "off")
    scaled = scaling.inward(latents.astype(np.float32)).astype(np.float16)
    known = None if structures is None else np.arange(count) % 3 > 0
    made = None if structures is None else structures(tokens).astype(np.float16)
    return Peptides(scaled, tokens, starts, classes, made, known), scaling


def table_of(folder, features):
    """A store's table of structures of some sequences; None: random ones."""
    rng = np.random.default_rng(0)
    table = BoundedTable(str(folder), NAME, identity("test"), np.inf, dense=True)
    made = {
        text: rng.normal(size=(len(text), WIDTH)) if each is None else each
        for text, each in features.items()
    }
    rows = [structure_row(sequence_key(text), np.asarray(f), "test") for text, f in made.items()]
    table.create()
    table.write(kept_rows(rows), "test")
    return table


@pytest.fixture(scope="package", autouse=True)
def one_thread():
    """Tensors are so small that threads would only wait for each other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting, "threads_of", lambda workers: 1)
        yield


@pytest.fixture(scope="package")
def made_up():
    """Peptides to train on, held-out ones, and the scaling of their latents."""
    train, scaling = peptides_of(300, 1)
    return train, peptides_of(80, 2, scaling)[0], scaling


@pytest.fixture(scope="package")
def trained(ray_session, made_up, tmp_path_factory):
    """The generator with how its training went, and the folder."""
    folder = tmp_path_factory.mktemp("peptides")
    train, held_out, scaling = made_up
    fitted = fit_peptides(train, held_out, NAMES, scaling, SETTINGS, str(folder))
    fitted.forget()
    return fitted, folder
