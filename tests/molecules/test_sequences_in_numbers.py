"""K-mers and descriptors of sequences, against plain Python and what peptides.py 0.5.0 prints."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.evaluation.audit import audit, audit_lines, distances_to_nearest
from pipeline.molecules.features.descriptors import descriptor_names, descriptor_values, names_of
from pipeline.molecules.features.fingerprints import fingerprints, packed_fingerprints
from pipeline.molecules.features.kmers import BITS
from pipeline.molecules.features.neighbours import nearest
from pipeline.molecules.kinds import SEQUENCE, SMILES, kind_of_columns, named_for, unnamed
from pipeline.molecules.parsers import SequenceParser
from pipeline.molecules.sequences import STANDARD
from tests.evaluation.test_audit import table

# Peptide(...).charge(pH=7, pKscale="EMBOSS"), .isoelectric_point(pKscale="EMBOSS"),
# .hydrophobicity("KyteDoolittle"), .hydrophobic_moment(window=11, angle=100)
OF_PEPTIDES = {
    "AMP_1": (2.978715824, 10.502986453, 0.196969697, 0.677535348),
    "AMP_3": (2.790837601, 8.374946401, 0.248275862, 0.488044098),
    "AMP_28": (-2.022054379, 3.550073557, 1.771428571, 0.510739679),  # 7 residues, one window
    "UniProt_6": (-2.331484944, 5.296578485, 0.097560976, 0.400502205),
    "UniProt_25": (0.975736117, 9.700002532, 1.39, 0.335337529),
}
NAMES = ("net charge at pH 7", "isoelectric point", "mean hydrophobicity", "hydrophobic moment")


def words(sequence: str) -> set[str]:
    return {sequence[i : i + k] for k in (1, 2, 3) for i in range(len(sequence) - k + 1)}


def described(sequence: str) -> dict[str, float]:
    return dict(zip(descriptor_names(SEQUENCE), descriptor_values([sequence], SEQUENCE)[0]))


@pytest.mark.parametrize("name", OF_PEPTIDES)
def test_descriptors_are_those_of_peptides_py(peptides, name):
    found = described(peptides[name])
    assert [found[each] for each in NAMES] == pytest.approx(OF_PEPTIDES[name], abs=2e-8)


def test_length_aromaticity_and_composition_are_counts(peptides):
    for sequence in peptides.values():
        found = described(sequence)
        assert found["length"] == len(sequence)
        shares = {letter: sequence.count(letter) / len(sequence) for letter in STANDARD}
        assert {n: found[f"share of {n}"] for n in STANDARD} == pytest.approx(shares)
        assert found["aromaticity"] == pytest.approx(shares["F"] + shares["W"] + shares["Y"])


def test_letters_beyond_the_standard_ones_count_for_the_length_alone():
    found, plain = described("AXKUW"), described("AKW")
    assert found["length"] == 5 and found["share of K"] == pytest.approx(1 / 5)
    same = ("net charge at pH 7", "isoelectric point", "mean hydrophobicity", "aromaticity")
    assert [found[n] for n in same] == pytest.approx([plain[n] for n in same])
    nothing = described("XX")
    assert nothing["length"] == 2 and np.isfinite(list(nothing.values())).all()
    assert words("AKW") - words("AXKW") == {"AK", "AKW"}
    assert fingerprints(["AXKW"], SEQUENCE).sum() == len({"A", "K", "W", "KW"})


def test_a_width_tells_whose_descriptors_they_are():
    for kind, text in ((SMILES, "CCO"), (SEQUENCE, "CCK")):
        assert names_of(descriptor_values([text], kind)) == descriptor_names(kind)
    assert descriptor_values([], SEQUENCE).shape == (0, 26)


def test_similarity_is_that_of_sets_of_words(peptides):
    texts = [*peptides.values(), "AA", "MK"]
    prints = packed_fingerprints(texts, SEQUENCE)
    assert prints.shape == (62, -(-BITS // 8)) and BITS == 20 + 400 + 8000
    assert [int(np.bitwise_count(row).sum()) for row in prints] == [len(words(t)) for t in texts]
    found = nearest(prints[:40], prints[40:], 3)
    for text, similarity, index in zip(texts, found.similarity, found.index):
        every = [
            len(words(text) & words(other)) / len(words(text) | words(other))
            for other in texts[40:]
        ]
        assert similarity == pytest.approx(sorted(every, reverse=True)[:3], abs=1e-6)
        assert [every[i] for i in index] == pytest.approx(similarity.tolist(), abs=1e-6)
    parsed = SequenceParser().parse(texts[0].lower(), None, fingerprint=True)
    assert parsed.fingerprint == prints[0].tobytes()


def test_the_audit_of_sequences_finds_their_charge(peptides):
    """ID sequences are UniProt's, OOD ones the same with lysines added: charge tells."""
    inside = [text for name, text in peptides.items() if name.startswith("UniProt")]
    outside = [text + "KK" for text in inside]
    training = table(id_train=inside[:10], id_val=inside[10:15], ood_train=outside[:15])
    tests, is_ood = inside[15:] + outside[15:], np.repeat([False, True], 15)
    rng = np.random.default_rng(0)
    made = audit(training, tests, is_ood, rng.normal(size=30), bootstrap_samples=100, seed=0,
                 kind=SEQUENCE)  # fmt: skip
    assert set(made["descriptors"]) == set(descriptor_names(SEQUENCE))
    assert made["descriptor"]["name"] in ("net charge at pH 7", "isoelectric point", "share of K")
    told = "\n".join(audit_lines(made))
    assert "Tanimoto by k-mers to the nearest ID training sequence" in told
    assert "this split says little about the model" in made["warning"]
    expected = [1 - max(_likeness(test, other) for other in inside[:10]) for test in tests]
    assert distances_to_nearest(tests, inside[:10], SEQUENCE) == pytest.approx(expected, abs=1e-6)


def _likeness(one: str, other: str) -> float:
    return len(words(one) & words(other)) / len(words(one) | words(other))


def test_tables_are_named_as_their_kind_and_back():
    import pyarrow as pa

    made = pa.table({"id": ["a"], "smiles": ["CC"], "nearest_smiles": ["CK"], "nearest_id": ["b"]})
    shown = named_for(made, SEQUENCE)
    assert shown.column_names == ["id", "sequence", "nearest_sequence", "nearest_id"]
    assert kind_of_columns(shown.column_names) == SEQUENCE and unnamed(shown).equals(made)
    assert named_for(made, SMILES) is not None and unnamed(named_for(made, SMILES)).equals(made)
    assert kind_of_columns(made.column_names) == SMILES
