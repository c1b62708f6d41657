"""Tokens are those of ESM-2's own tokenizer."""

from __future__ import annotations

import numpy as np
import pytest
from transformers import EsmTokenizer
from transformers.models.esm.configuration_esm import get_default_vocab_list

from pipeline.encoders.esm.tokens import VOCABULARY, token_ids
from pipeline.molecules.sequences import EXTRA, STANDARD


def test_tokens_are_those_of_the_tokenizer(tmp_path, peptides):
    assert get_default_vocab_list() == VOCABULARY
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY))
    tokenizer = EsmTokenizer(str(tmp_path / "vocab.txt"))
    for sequence in [*peptides.values(), STANDARD + EXTRA, "M"]:
        np.testing.assert_array_equal(token_ids(sequence), tokenizer(sequence)["input_ids"])


@pytest.mark.parametrize("sequence", ["MKJ", "MK*", "mk", "MKß", "M K", "MK<"])
def test_a_letter_without_a_token_is_told(sequence):
    with pytest.raises(ValueError, match="ESM-2 has no token for"):
        token_ids(sequence)
