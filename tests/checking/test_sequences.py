"""What jobs.check tells of sequences: counts, lengths; no structures, no fragments."""

from __future__ import annotations

from tests.checking.looked_at import told as told_of
from tests.conftest import DATA


def test_a_fasta_file_is_told(tmp_path, peptides):
    path = tmp_path / "all.fasta"
    path.write_text(
        (DATA / "peptides.fasta").read_text() + ">gap\nMK-LV\n>again\nMKLLA\n>a\nMKLLA\n"
    )
    found, lines = told_of(path)
    lengths = [len(text) for text in peptides.values()]
    assert lines["rows"] == ["63 in = 62 sequences + 1 rejected"]
    [line] = lines["lengths"]
    assert line.startswith(f"5 to {max(lengths)} residues (--min_length 2, --max_length 1022")
    assert "fragments" not in lines and "structures" not in lines
    assert found.summary()["molecules_are"] == "sequence" and found.summary()["longest_text"] == 60
    assert "sequence from '(sequence)'" in lines["columns"][0]
    assert any("gaps" in line for line in lines["rejected"])
    assert "1 rows repeat one of 61 molecules" in lines["repeated"][0]
