"""What the door to the encoders says when it stays shut."""

from __future__ import annotations

import pytest

from pipeline.encoders import ENCODERS, load_encoder
from pipeline.runtime.errors import InputError


def test_an_unknown_encoder_is_an_input_error_that_names_the_known():
    with pytest.raises(InputError, match="'minimal'.*minimol, unimol"):
        load_encoder("minimal")


def test_a_missing_package_is_an_input_error_that_names_the_extra(monkeypatch, tmp_path):
    (tmp_path / "needy_encoder.py").write_text("import package_that_nobody_has\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(ENCODERS, "minimol", "needy_encoder:Needy")
    with pytest.raises(InputError, match=r"'package_that_nobody_has'.*molsieve\[minimol\]"):
        load_encoder("minimol")
