"""Lines that are made to break things: 20,000 of all kinds, the same at each call."""

from __future__ import annotations

import random

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
        return rng.randbytes(size).translate(None, b"\r\n")

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
    return {
        kind: [line.translate(None, b"\r\n") for line in lines] for kind, lines in kinds.items()
    }


def adversarial_lines(smiles: list[str]) -> list[bytes]:
    """All lines, their kinds mixed."""
    lines = [line for those in adversarial(smiles).values() for line in those]
    random.Random(0).shuffle(lines)
    return lines
