"""What many heads that train together cost beside one.

`python -m bench.heads` writes heads.md. Features are made up (Gaussians, the classes a little
apart), in the sizes of the shipped sample's split and of other ones; settings are the defaults but
for seeds and fewer epochs. Each time is that of one call, Ray already up: reading features,
training through TorchTrainer on one thread, the best epochs' tensors.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from bench.report import cpu_name, markdown
from pipeline.detectors.feature_space import FeatureSpace
from pipeline.encoding.stored_features import EncodeResult
from pipeline.encoding.views import EncodedViews
from pipeline.molecules.rejected import REJECTED
from pipeline.runtime.files import remove
from pipeline.runtime.nodes.cluster import start_ray
from pipeline.store.keyed_table import KeyedTable, features_table
from pipeline.training.settings import TrainSettings
from pipeline.training.together.trainer import train_heads
from pipeline.training.trained import Trained
from pipeline.training.trainer import train_head

ROLES = ("id_train", "ood_train", "id_val", "ood_val")
WIDTH, ROUNDS, EPOCHS, FEW = 512, 2, 15, 10
ONE_THREAD = 1e-9  # share of the cores
CASES = (
    ("72 and 20, width 64", (72, 20, 24, 20), 100, {"width": 64}),
    ("864 and 240", (864, 240, 288, 240), 100, {}),
    ("1,600 and 800", (1600, 800, 400, 400), None, {}),
)

TOLD = """\
Ten heads together took 3.3 times less CPU than one by one on the smallest set, and 1.3 to 1.4 times
less on the others. What is shared (start, reading, Python's overhead for each operation) decides
small sets; on larger ones a further head costs its own arithmetic. Several threads: not measured.
"""


def main() -> None:
    """Measure all cases and write the page."""
    logging.disable(logging.WARNING)
    start_ray()
    rows = [row for *case, changes in CASES for row in _rows(*case, **changes)]
    lines = [
        "# Many heads at once",
        "",
        f"`python -m bench.heads` on {cpu_name()}, one thread, torch "
        f"{torch.__version__}. Made-up features, {WIDTH} wide unless told; ID and OOD training "
        f"molecules as named; {EPOCHS} epochs at most; smallest of {ROUNDS} interleaved calls (of "
        "100 heads, one). CPU seconds tell more than the clock: the machine had other work.",
        "",
        *markdown(
            ("molecules", "heads", "s", "CPU s", "times one head", "in CPU", "one by one, s",
             "in CPU", "epochs of a head"), rows,
        ),
        "",
        TOLD,
    ]  # fmt: skip
    Path(__file__).with_name("heads.md").write_text("\n".join(lines))
    print("\n".join(lines))


def _rows(
    name: str, sizes: tuple[int, ...], many: int | None, width: int = WIDTH, **changes: Any
) -> list[list[str]]:
    with tempfile.TemporaryDirectory() as folder:
        data = _data(f"{folder}/store", sizes, width)

        def heads(count: int) -> list[TrainSettings]:
            return [
                TrainSettings(
                    data_file="made", output_dir=f"{folder}/{seed}", device="cpu", seed=seed,
                    epochs=EPOCHS, **changes,
                ).sized()
                for seed in range(count)
            ]  # fmt: skip

        def one() -> list[Trained]:
            return [_put_away(train_head(*data, heads(1)[0], "cpu", share=ONE_THREAD))]

        def together(count: int) -> list[Trained]:
            return [_put_away(made) for made in train_heads(*data, heads(count), "cpu", ONE_THREAD)]

        def in_turn() -> list[Trained]:
            each = heads(FEW)
            return [_put_away(train_head(*data, s, "cpu", share=ONE_THREAD)) for s in each]

        tries = {1: one, FEW: lambda: together(FEW), "turn": in_turn}
        one()  # imports
        times = {key: [] for key in tries}
        made = {}
        for _ in range(ROUNDS):
            for key, work in tries.items():
                taken, made[key] = _timed(work)
                times[key].append(taken)
        best = {key: tuple(map(min, zip(*taken))) for key, taken in times.items()}
        if many is not None:
            best[many], made[many] = _timed(lambda: together(many))
    rows = []
    for count in (1, FEW, *([many] if many else [])):
        ratios = [f"{mine / single:.1f}" for mine, single in zip(best[count], best[1])]
        turn = [f"{value:.2f}" if count == FEW else "" for value in best["turn"]]
        epochs = sum(each.stats["epochs"] for each in made[count]) / count
        seconds = [f"{value:.2f}" for value in best[count]]
        rows.append([name, str(count), *seconds, *ratios, *turn, f"{epochs:.0f}"])
    return rows


def _timed(work: Callable[[], list[Trained]]) -> tuple[tuple[float, float], list[Trained]]:
    clock, cpu = time.perf_counter(), time.process_time()
    made = work()
    return (time.perf_counter() - clock, time.process_time() - cpu), made


def _put_away(made: Trained) -> Trained:
    for folder in made.leftovers:  # a finished run's state: the next call shall train again
        remove(folder)
    return made


def _data(folder: str, sizes: tuple[int, ...], width: int) -> tuple[Any, ...]:
    rng = np.random.default_rng(0)
    roles = np.repeat(ROLES, sizes)
    apart = 1.6 / np.sqrt(width)
    rows = rng.normal(size=(len(roles), width)) + apart * np.char.startswith(roles, "ood")[:, None]
    keys = [f"{n:032x}" for n in range(len(roles))]
    table = KeyedTable(folder, "features", {"made": "up"})
    table.create()
    table.write(features_table(keys, rows.astype(np.float32)), "run")
    molecules = pa.table({"id": keys, "key": keys, "smiles": ["C"] * len(keys), "role": roles})
    encoded = EncodeResult(table, pa.table({"key": pa.array([], pa.string())}), 0, 0, 0.0, 0.0,
                           0.0, 0.0, None, {"encoder": "made", "weights": "none"})  # fmt: skip
    views = EncodedViews(molecules, REJECTED.empty_table(), encoded, {"minimol": encoded})
    return molecules, views, FeatureSpace.unchanged("minimol")


if __name__ == "__main__":
    main()
