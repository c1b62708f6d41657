"""ESM-2's tokens: one a residue, between <cls> and <eos>."""

from __future__ import annotations

import numpy as np

# As in vocab.txt of the published models, in order of ids.
VOCABULARY = (
    "<cls>", "<pad>", "<eos>", "<unk>",
    *"LAGVSERTIDPKQNFYMHWCXBUZO.-", "<null_1>", "<mask>",
)  # fmt: skip
CLS, PAD, EOS, UNK, MASK = (
    VOCABULARY.index(name) for name in ("<cls>", "<pad>", "<eos>", "<unk>", "<mask>")
)
SPECIAL = 2  # tokens of a sequence that are no residues: <cls> and <eos>

_ID_OF_BYTE = np.full(256, UNK, dtype=np.int64)
for _number, _token in enumerate(VOCABULARY):
    if len(_token) == 1:
        _ID_OF_BYTE[ord(_token)] = _number


def token_ids(sequence: str) -> np.ndarray:
    """A canonical sequence of n residues as ids (n + 2,) int64, <cls> first and <eos> last.

    Raises
    ------
    ValueError
        If a letter is none of ESM-2's.
    """
    letters = np.frombuffer(sequence.encode("ascii", "replace"), np.uint8)
    residues = _ID_OF_BYTE[letters]
    if (residues == UNK).any():
        place = int(np.argmax(residues == UNK))
        raise ValueError(f"ESM-2 has no token for {sequence[place]!r}, at {place + 1}")
    return np.concatenate([[CLS], residues, [EOS]])
