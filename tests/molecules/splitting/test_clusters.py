"""Splits by clusters of similar molecules, against scikit-learn called here."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from rdkit import Chem, DataStructs
from rdkit.Chem import AllChem
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from threadpoolctl import threadpool_limits

from jobs import cli
from jobs.split import split as split_job
from pipeline.molecules.settings import SplitSettings
from pipeline.runtime.errors import InputError
from tests.molecules.splitting.cuts import cut

ID_SPLITS = ("train", "iid_val", "iid_test")


def clustered(smiles: list[str], clusters: int, seed: int) -> list[int]:
    """Clusters by scikit-learn, of fingerprints that RDKit makes in another way."""
    prints = np.zeros((len(smiles), 2048), np.float32)
    for row, text in zip(prints, smiles):
        mol = Chem.MolFromSmiles(text)
        bits = AllChem.GetHashedMorganFingerprint(mol, 2, 2048).GetNonzeroElements()
        row[list(bits)] = 1
    main = PCA(min(50, len(smiles) - 1), svd_solver="randomized", random_state=seed)
    means = KMeans(clusters, n_init=10, random_state=seed)
    with threadpool_limits(1):  # several would be slower on a busy machine
        return means.fit_predict(main.fit_transform(prints)).tolist()


def domains(made: dict[str, list[dict]]) -> dict[str, int]:
    return {item["smiles"]: item["domain_id"] for items in made.values() for item in items}


@pytest.mark.parametrize(
    ("rows", "clusters", "seed"), [(400, 30, 42), (400, 7, 3), (45, 12, 42), (400, 30, 2**32 + 1)]
)
def test_domains_are_the_clusters_of_scikit_learn(molecules, rows, clusters, seed):
    table = molecules.slice(0, rows)
    found = domains(cut(table, by="cluster", clusters=clusters, seed=seed))
    smiles = table["smiles"].to_pylist()
    pairs = set(zip(clustered(smiles, clusters, seed % 2**32), map(found.get, smiles)))
    assert len(pairs) == clusters  # one domain for each cluster, and one cluster for each domain
    assert sorted(domain for _, domain in pairs) == list(range(clusters))


@pytest.mark.parametrize("seed", [42, 1, 2])
@pytest.mark.parametrize(("id_fraction", "ood_val_fraction"), [(0.6, 0.2), (0.5, 0.1)])
def test_whole_clusters_are_id_and_the_rest_is_shared_out(
    molecules, seed, id_fraction, ood_val_fraction
):
    made = cut(molecules, by="cluster", seed=seed, id_fraction=id_fraction,
               ood_val_fraction=ood_val_fraction)  # fmt: skip
    of_id = Counter(item["domain_id"] for split in ID_SPLITS for item in made[split])
    val, test = (Counter(i["domain_id"] for i in made[s]) for s in ("ood_val", "ood_test"))
    assert not of_id.keys() & val.keys() and not of_id.keys() & test.keys()
    assert not val.keys() & test.keys()
    assert 0 <= of_id.total() - id_fraction * molecules.num_rows < of_id[max(of_id)]
    share = ood_val_fraction / (1 - id_fraction) * (val.total() + test.total())
    assert abs(val.total() - share) <= max((val | test).values())
    ends = [of_id.total() * tenths // 10 for tenths in (7, 8, 10)]
    assert list(np.cumsum([len(made[split]) for split in ID_SPLITS])) == ends


def test_the_order_of_clusters_is_random_and_not_by_size(molecules):
    orders = []
    for seed in range(4):
        counts = Counter(domains(cut(molecules, by="cluster", seed=seed)).values())
        orders.append([counts[domain] for domain in sorted(counts)])
    assert len(set(map(tuple, orders))) == 4
    assert not any(o in (sorted(o), sorted(o, reverse=True)) for o in orders)


def test_molecules_of_one_fingerprint_share_a_cluster():
    pairs = [("C" * n + "[C@H](F)Cl", "C" * n + "[C@@H](F)Cl") for n in range(1, 6)]
    pairs += [(f"{head}/C=C/C", f"{head}/C=C\\C") for head in ("OC", "NC", "ClC", "SC", "FC")]
    smiles = [text for pair in pairs for text in pair]
    for one, other in pairs:
        prints = [AllChem.GetMorganFingerprint(Chem.MolFromSmiles(s), 2) for s in (one, other)]
        assert DataStructs.TanimotoSimilarity(*prints) == 1
    table = pa.table({"smiles": smiles, "label": [0.0] * len(smiles)})
    different = 9
    found = domains(cut(table, by="cluster", clusters=different))
    assert all(found[one] == found[other] for one, other in pairs)


def test_too_few_molecules_are_an_input_error(molecules):
    message = "29 molecules with 29 different fingerprints are too few for 30 clusters; lower"
    with pytest.raises(InputError, match=message):
        cut(molecules.slice(0, 29), by="cluster")
    twins = pa.table({"smiles": ["C[C@H](F)Cl", "C[C@@H](F)Cl"], "label": [0.0, 0.0]})
    with pytest.raises(InputError, match="2 molecules with 1 different fingerprints"):
        cut(twins, by="cluster", clusters=2)
    with pytest.raises(InputError, match="0 molecules"):
        cut(molecules.slice(0, 0), by="cluster")
    with pytest.raises(InputError, match="leave the split ood_.* empty; pass more --clusters"):
        cut(molecules, by="cluster", clusters=2)
    with pytest.raises(InputError, match="--clusters must be at least 2"):
        cut(molecules, by="cluster", clusters=1)


def test_the_command_accounts_for_every_row(ray_session, tmp_path, molecules, capsys):
    smiles = molecules["smiles"].to_pylist()
    table, target = tmp_path / "d.csv", tmp_path / "s.json"
    table.write_text("\n".join(["smiles", *smiles, smiles[0], "xx"]) + "\n")
    argv = ["--data_file", str(table), "--by", "cluster", "--output", str(target)]
    assert cli.main(SplitSettings, split_job, "split", argv) == 0
    out = capsys.readouterr().out
    made = json.loads(target.read_text())["split"]
    assert made == {
        split: [{**item, "cls_label": None, "reg_label": None} for item in items]
        for split, items in cut(molecules, by="cluster").items()
    }
    counts = {
        part: len({item["domain_id"] for split in splits for item in made[split]})
        for part, splits in (
            ("ID", ID_SPLITS),
            ("ood_val", ["ood_val"]),
            ("ood_test", ["ood_test"]),
        )
    }
    assert sum(counts.values()) == 30 and len(domains(made)) == 400
    assert "402 in: 1 repeat a molecule, 1 rejected" in out
    assert "order   30 clusters of ECFP4, in random order" in out
    assert "cluster " + ", ".join(f"{part} {n}" for part, n in counts.items()) in out
    assert cli.main(SplitSettings, split_job, "split", [*argv, "--clusters", "500"]) == 2
    assert "too few for 500 clusters; lower --clusters" in capsys.readouterr().err
