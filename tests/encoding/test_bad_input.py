"""20,000 lines that are made to break things: each is encoded, or rejected with a reason."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from jobs import encode as encode_job
from jobs.cli import main
from pipeline.encoding.settings import EncodeSettings
from pipeline.store.keyed_table import KeyedTable

LINES = 20_000
METALS = ["Fe", "Pt", "Pd", "Ru", "Zn", "Hg", "Sn", "U", "Cf", "Og", "Xe", "*"]
SALTS = ["[Na+].[Cl-]", "[K+].[O-]C(=O)C", "[NH4+].[Br-]", "[Li+].[AlH4-]", "Cl.NCCO"]
RADICALS = ["[CH3]", "[O][O]", "C[CH]C", "[N]=O", "[CH2]", "[C]", "[H]", "[H+]", "[He]", "[2H]"]
PARTS = ["CC(=O)NC", "CCO", "c1ccccc1O", "C[C@H](N)C(=O)O", "C1CC1", "FC(F)F", "C/C=C/C", "N#N"]
WEIRD = ["*", "C~C", "[C:1]", "C->[Fe]", "[13CH4]", "[C@@H](F)(Cl)Br", "C%(12)CC%(12)", "[#6]"]


def adversarial(smiles: list[str]) -> dict[str, list[bytes]]:
    """Lines of each kind, without line ends; the same at each call."""
    rng = random.Random(6)
    signs = "CNOFS()[]=#@+-/\\.%0123456789cnos*~:$>{}"

    def mutant() -> bytes:
        text = list(rng.choice(smiles))
        for _ in range(rng.randint(1, 3)):
            place = rng.randrange(len(text))
            text[place : place + rng.randint(0, 2)] = rng.choices(signs, k=rng.randint(0, 2))
        return "".join(text).encode()

    def noise(size: int) -> bytes:
        return rng.randbytes(size).replace(b"\n", b"")

    encodings = ("utf-16", "latin-1", "cp1251", "shift-jis", "utf-8-sig")
    strange = ["CCO\u00e9", "CC\u0416", "\u6c34", "\uff23\uff23\uff2f", "C\u200bC", "C\u2028C"]
    kinds = {
        "polymer": [(unit * n).encode() for unit, n in
                    (("C", 1000), ("NCC(=O)", 200), ("c1ccccc1", 170), ("C", 4999))]
        + [b"C1" + b"C" * 999 + b"1", b"C(" * 1200 + b"C" + b")" * 1200],
        "long": [bytes(rng.choices(signs.encode(), k=k)) for k in (5_001, 10**5, 10**6, 5 * 10**6)]
        + [b"C" * 10**6, b"C(" * 10**5, b"[" * 10**6, b"C1" * 10**5, b"." * 10**6],
        "metal": [f"{rng.choice(PARTS)}[{rng.choice(METALS)}]{rng.choice(['', 'C', 'Cl'])}".encode()
                  for _ in range(300)]
        + [f"[{m}+{q}]".encode() for m in METALS for q in range(5)],
        "salt": [f"{rng.choice(PARTS)}.{rng.choice(SALTS)}".encode() for _ in range(300)],
        "fragments": [".".join(rng.choices(PARTS, k=rng.randint(2, 5))).encode()
                      for _ in range(300)],
        "radical": [rng.choice(RADICALS).encode() for _ in range(300)],
        "weird": [f"{rng.choice(WEIRD)}{rng.choice(['', '.', ' name', '(', ')'])}".encode()
                  for _ in range(300)],
        "empty": [rng.choice([b"", b" ", b"\t", b"\r", b"\0"]) for _ in range(2000)],
        "encoding": [rng.choice(strange).encode(rng.choice(encodings), errors="ignore")
                     for _ in range(2000)],
        "unbalanced": [mutant() for _ in range(2000)],
    }  # fmt: skip
    rest = LINES - sum(map(len, kinds.values()))
    kinds["noise"] = [noise(int(rng.paretovariate(0.7))) for _ in range(rest)]
    return {kind: [line.replace(b"\n", b"") for line in lines] for kind, lines in kinds.items()}


@pytest.fixture(scope="module")
def encoded(ray_session, moses_smiles, small_weights, tmp_path_factory) -> tuple[Path, list[str]]:
    """The output folder of jobs.encode, and the kind of each line."""
    folder = tmp_path_factory.mktemp("bad")
    kinds = adversarial(moses_smiles)
    lines = [(line, kind) for kind, those in kinds.items() for line in those]
    random.Random(0).shuffle(lines)
    (folder / "lines.smi").write_bytes(b"\n".join([*(line for line, _ in lines), b""]))
    flags = {
        "data_file": folder / "lines.smi", "cache_root": folder / "store", "device": "cpu",
        "output_dir": folder / "out", "weights": small_weights, "conformer_seconds": 3,
        "conformer_gb": 1, "conformer_method": "etkdg",
    }  # fmt: skip
    argv = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    assert main(EncodeSettings, encode_job.encode, "encode", argv) == 0
    return folder, [kind for _, kind in lines]


def test_every_line_is_encoded_or_rejected_with_a_reason(encoded):
    folder, _ = encoded
    molecules = pq.read_table(folder / "out/molecules.parquet").to_pylist()
    rejected = pq.read_table(folder / "out/rejected.parquet").to_pylist()
    ids = [row["id"] for row in molecules + rejected]
    assert len(ids) == LINES and set(ids) == {f"lines:{i}" for i in range(LINES)}
    assert all(row["stage"] and row["reason"] for row in rejected)
    identity = json.loads((folder / "out/run_summary.json").read_text())["encoder_identity"]
    keys = sorted({row["key"] for row in molecules})
    features = KeyedTable(str(folder / "store"), "features", identity).read_features(keys)
    assert np.isfinite(features).all()


def test_what_is_a_molecule_is_encoded_however_odd(encoded):
    folder, kinds = encoded
    found = pq.read_table(folder / "out/molecules.parquet", columns=["id"])["id"].to_pylist()
    count, total = Counter(kinds[int(row.split(":")[1])] for row in found), Counter(kinds)
    assert count["salt"] == total["salt"] and count["fragments"] == total["fragments"]
    for kind in ("metal", "radical", "weird", "unbalanced"):
        assert 0 < count[kind] < total[kind], kind
    assert count["empty"] == 0


def test_what_is_too_large_is_rejected_as_that(encoded):
    folder, kinds = encoded
    rows = pq.read_table(folder / "out/rejected.parquet").to_pylist()
    reasons = {int(row["id"].split(":")[1]): row["reason"] for row in rows}
    for place in (place for place, kind in enumerate(kinds) if kind == "long"):
        assert "characters, more than 5,000" in reasons[place]
    limits = "took more than 3 s|needs more than 1 GiB"
    large = [reasons.get(place) for place, kind in enumerate(kinds) if kind == "polymer"]
    assert all(reason is None or re.search(limits, reason) for reason in large)
    assert sum(reason is not None for reason in large) > len(large) / 2
