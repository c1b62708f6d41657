"""What a file from strangers may hold: an object whose unpickling runs code."""

from __future__ import annotations

import os
from pathlib import Path


class Bomb:
    """Unpickling it makes a folder."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)
