"""The proteins that MolSieve-Mini-Protein must not be pretrained on, as they resemble a test set.

`python -m bench.mini_protein.exclude` writes their ids into excluded.csv.gz beside it, one a line
below `id`, and into counts.json how many each rule leaves out. It needs `mmseqs` (Debian: apt-get
install mmseqs2; the files there were made by its version 14).

- A protein that contains a peptide of the AMP set, of either class, as it is.
- A protein that MMseqs2 aligns with a chain of a test set (PPI Test_60 and Test_315, DNA Test_129
  and Test_181) at 30 % identity or more and an expectation of 1e-3 or less, whatever share of the
  chain the alignment covers: one domain in common is enough.
- The same with a peptide of the AMP set. For these short queries words are of five residues without
  gaps, the alignment must cover half of the peptide, and an expectation of 0.1 is enough: stretches
  of six residues agree by chance, and 0.1 is what that happens for at most one peptide in ten.
"""

from __future__ import annotations

import gzip
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq

from pipeline.molecules.formats import read_rows
from pipeline.molecules.settings import LibrarySettings

HERE = Path(__file__).parent
DATA = HERE.parents[1].parent / "shared" / "data"
PROTEINS = DATA / "uniprot_20k.fasta.gz"
PEPTIDES = DATA / "peptides_amp_vs_uniprot.csv.gz"
TEST_SETS = {
    "ppi_sites.parquet": ("Test_60", "Test_315"),
    "dna_sites.parquet": ("DNA_Test_129", "DNA_Test_181"),
}
IDENTITY = 0.3
SEARCH = ("-s", "7.5", "--min-seq-id", str(IDENTITY), "--max-seqs", "4000", "--threads", "1")
OF_CHAINS = ("-e", "0.001")
OF_PEPTIDES = ("-e", "0.1", "-c", "0.5", "--cov-mode", "2", "-k", "5", "--spaced-kmer-mode", "0")


def main() -> None:
    """Apply the rules; write the ids."""
    rows = read_rows(LibrarySettings(data_file=str(PROTEINS)))
    proteins = dict(zip(rows["id"].to_pylist(), rows["smiles"].to_pylist()))
    peptides = peptides_of(PEPTIDES)
    left_out = {"AMP set, contained": containing(proteins, peptides)}
    left_out |= similar(proteins, chains_of_test_sets(), OF_CHAINS)
    left_out |= similar(proteins, {"AMP set, similar": peptides}, OF_PEPTIDES)
    ids = sorted(set().union(*left_out.values()))
    counts = {name: len(found) for name, found in left_out.items()}
    told = json.dumps({**counts, "in all": len(ids), "of": len(proteins)}, indent=1)
    print(told)
    (HERE / "counts.json").write_text(f"{told}\n")
    content = gzip.compress("\n".join(["id", *ids, ""]).encode(), mtime=0)
    (HERE / "excluded.csv.gz").write_bytes(content)


def peptides_of(path: Path) -> list[str]:
    """The distinct peptides of both classes; the file's first line has counts and names."""
    table = pyarrow.csv.read_csv(
        path, read_options=pyarrow.csv.ReadOptions(skip_rows=1, column_names=["sequence", "class"])
    )
    return sorted(set(table["sequence"].to_pylist()))


def chains_of_test_sets() -> dict[str, list[str]]:
    """Sequences of each test set."""
    chains = {}
    for file, names in TEST_SETS.items():
        rows = pq.read_table(DATA / file, columns=["split", "sequence"]).to_pylist()
        for name in names:
            chains[name] = [row["sequence"] for row in rows if row["split"] == name]
    return chains


def containing(proteins: dict[str, str], peptides: list[str]) -> set[str]:
    """Ids of proteins that contain a peptide."""
    names, text = list(proteins), "\n".join(proteins.values())
    ends = np.cumsum([len(sequence) + 1 for sequence in proteins.values()])
    found = set()
    for peptide in peptides:
        place = text.find(peptide)
        while place >= 0:
            found.add(names[np.searchsorted(ends, place, side="right")])
            place = text.find(peptide, place + 1)
    return found


def similar(
    proteins: dict[str, str], sets: dict[str, list[str]], options: tuple[str, ...]
) -> dict[str, set[str]]:
    """Ids of proteins that MMseqs2 finds for the sequences of each set."""
    names, queries = list(proteins), [(name, s) for name, many in sets.items() for s in many]
    found: dict[str, set[str]] = {name: set() for name in sets}
    with tempfile.TemporaryDirectory() as folder:
        files = [f"{folder}/{name}" for name in ("queries.fasta", "proteins.fasta", "hits.tsv")]
        for file, sequences in zip(files, ([s for _, s in queries], proteins.values())):
            Path(file).write_text("".join(f">{i}\n{s}\n" for i, s in enumerate(sequences)))
        command = ["mmseqs", "easy-search", *files, f"{folder}/work", *SEARCH, *options,
                   "--format-output", "query,target", "-v", "1"]  # fmt: skip
        subprocess.run(command, check=True)
        for line in Path(files[2]).read_text().splitlines():
            query, target = map(int, line.split())
            found[queries[query][0]].add(names[target])
    return found


if __name__ == "__main__":
    main()
