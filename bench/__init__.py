"""Speed and worth measured against peers, each with the command that measures it."""

from pathlib import Path

_DATA = Path(__file__).parent.parent / "data"
# The same 2,400 molecules of the HIV screen, split in two ways.
SAMPLES = {
    "scaffold": _DATA / "hiv_scaffold_sample.json.gz",
    "size": _DATA / "hiv_size_sample.json.gz",
}
