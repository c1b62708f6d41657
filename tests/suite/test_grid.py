"""What a suite is asked for: variants, trainings, and requests that cannot be."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from pipeline.detectors.registry import DETECTORS, ENERGY_HEADS
from pipeline.runtime.errors import InputError
from pipeline.suite.cells import cell_key
from pipeline.suite.grid import detectors_asked, encoders_asked, samplings_asked, trainings_of
from pipeline.suite.results.compared import check_reference
from pipeline.suite.results.table import KNOWN, LABELS
from pipeline.suite.settings import SuiteSettings
from pipeline.suite.sweep import SWEPT, check_sweep, variant_text, variants_of
from pipeline.training.settings import TrainSettings

COMMON = TrainSettings(data_file="a.json")


def suite(**changes) -> SuiteSettings:
    return SuiteSettings(**{"data": ["a.json"], **changes})


def test_a_detector_takes_the_swept_settings_that_concern_it():
    sweep = {"dpo_beta": [0.1, 1.0], "knn_k": [5, 10], "ood_ratio": [1.0, 0.02], "lr": [1e-3]}
    found = {name: variants_of(name, sweep) for name in ("dpo", "bce", "knn", "oe_knn", "tanimoto")}
    assert [len(variants) for variants in found.values()] == [4, 2, 2, 4, 1]
    assert found["bce"][1] == {"ood_ratio": 0.02, "lr": 1e-3}
    assert found["tanimoto"] == [{}]
    assert variant_text(found["dpo"][0]) == "dpo_beta=0.1, ood_ratio=1, lr=0.001"


def test_no_swept_setting_has_the_name_of_another_column():
    assert not SWEPT & {*KNOWN, *LABELS}


def test_samplings_are_those_of_all_variants_and_of_tests_across():
    sweep = {"ood_ratio": [1.0, 0.02], "lr": [0.1, 0.2]}
    ratios = [(("ood_ratio", 1.0),), (("ood_ratio", 0.02),)]
    assert samplings_asked(suite(sweep=sweep), ["bce"]) == ratios
    assert samplings_asked(suite(sweep=sweep), ["bce", "knn"]) == [*ratios, ()]
    assert samplings_asked(suite(sweep=sweep, cross=True), ["bce"]) == [*ratios, ()]
    assert samplings_asked(suite(sweep={"lr": {}}, search=2), ["bce"]) == [()]


@pytest.mark.parametrize(
    ("reference", "fine"),
    [
        (None, True), ("knn", True), ("dpo (lr=0.1)", True), ("two/dpo (lr=0.2)", True),
        ("ecfp/knn", True), ("dpo", False), ("lof", False), ("three/knn", False),
        ("knn (lr=0.1)", False),
    ],
)  # fmt: skip
def test_a_reference_that_no_method_will_be_called_is_told(reference, fine):
    asked = suite(reference=reference, detectors=["knn", "dpo"], sweep={"lr": [0.1, 0.2]},
                  encoders=["ecfp", {"name": "two", "views": "descriptors"}])  # fmt: skip
    if fine:
        check_reference(asked, encoders_asked(asked), asked.detectors)
        return
    with pytest.raises(InputError, match=f"--reference {re.escape(reference)}: is "):
        check_reference(asked, encoders_asked(asked), asked.detectors)


def test_there_is_a_training_for_each_seed_unless_none_changes_it():
    [encoder] = encoders_asked(suite(encoders=["ecfp+descriptors"]))
    heads = trainings_of("a", encoder, "bce", [{"lr": 0.1}, {"lr": 0.2}], COMMON, [1, 2, 3])
    assert [(t.seed, t.settings.lr) for t in heads] == [
        (seed, lr) for lr in (0.1, 0.2) for seed in (1, 2, 3)
    ]
    assert {t.settings.loss for t in heads} == {"bce"}
    assert (
        heads[0].settings.view_names == ("ecfp", "descriptors")
        and encoder.name == "ecfp+descriptors"
    )
    [knn] = trainings_of("a", encoder, "knn", [{}], COMMON, [1, 2, 3])
    assert knn.any_seed and knn.seed == 1


def test_all_detectors_are_those_of_the_registry():
    assert set(detectors_asked(suite(detectors=["all"]))) == {*ENERGY_HEADS, *DETECTORS}


def test_a_cells_key_changes_with_what_decides_it_alone():
    [encoder] = encoders_asked(suite(encoders=["descriptors"]))
    [training] = trainings_of("a", encoder, "dpo", [{}], COMMON, [1])

    def key(identity="one", molecules="m", tests="t", **changes) -> str:
        changed = replace(training, settings=replace(training.settings, **changes))
        return cell_key(changed, {"encoder": identity}, molecules, tests)

    same = [key(output_dir="x", cache_root="y", data_file="moved.json", num_workers=2), key()]
    others = [
        key(seed=2), key(lr=1.0), key(dropout=0.2), key(detector="bce", loss="bce"),
        key(data_seed=1), key(label_column="y"), key(views="ecfp"), key(identity="two"),
        key(molecules="n"), key(tests="u"),
    ]  # fmt: skip
    assert same[0] == same[1]
    assert len({same[0], *others}) == 1 + len(others)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"data": []}, "required: --data"),
        ({"seeds": [1, 1]}, "none twice"),
        ({"seeds": []}, "at least one seed"),
        ({"cross": True}, "--cross needs at least two"),
        ({"data_file": "a.json"}, "a suite takes --data"),
        ({"views": "ecfp"}, "a suite takes --encoders"),
        ({"seed": 1}, "a suite takes --seeds"),
        ({"finetune_encoder": True}, "see jobs.compare"),
        ({"id_file": "a.csv"}, "--id_file does nothing in a suite"),
        ({"lora_rank": 2}, "--lora_rank does nothing in a suite"),
    ],
)
def test_settings_that_would_do_nothing_are_told(changes, told):
    with pytest.raises(InputError, match=told):
        suite(**changes).check()


@pytest.mark.parametrize(
    ("sweep", "search", "told"),
    [
        ({"dpo_betta": [1]}, None, "no setting of training or sampling"),
        ({"hinge_margin": [1.0]}, None, "concerns none of --detectors"),
        ({"lr": []}, None, "give a list of values"),
        ({"lr": 0.1}, None, "give a list of values"),
        ({"lr": [0.1, 0.1]}, None, "0.1 is there twice"),
        ({"lr": [0.1, -1.0]}, None, "--lr must be above 0"),
        ({"lr": ["fast"]}, None, "'fast' is no value of lr"),
        ({"epochs": [1.5]}, None, "1.5 is no value of epochs"),
        ({"lr": [0.1234567, 0.12345671]}, None, "0.123457 is there twice"),
        ({"lr": [1, 1.0]}, None, "1 is there twice"),
        ({"ood_val_by": ["most"]}, None, "'most' is no value of ood_val_by"),
        ({"sampling": ["all", "good"]}, None, "chooses test molecules too"),
        ({"test_size": [10, 20]}, None, "chooses test molecules too"),
        ({"debug_dataset_size": [10, 20]}, None, "chooses test molecules too"),
        ({"data_seed": [1, 2]}, None, "give --data an entry for each value"),
        ({"seed": [1, 2]}, None, "use --seeds"),
        ({"weights": ["mini"]}, None, "give --encoders an entry"),
        ({"encoder_lr": [1.0]}, None, "does not finetune"),
        ({"lr": {"least": 1e-4, "most": 1e-2}}, None, "bounds go with --search"),
        ({"lr": {"least": 1e-2, "most": 1e-4}}, 3, "least must be above 0 and below most"),
        ({"lr": {"from": 1e-4}}, 3, "give bounds as"),
        ({"ood_ratio": [1.0, 0.1]}, 3, "chooses molecules"),
        ({}, 3, "--search needs --sweep"),
    ],
)
def test_a_sweep_that_cannot_be_is_told(sweep, search, told):
    settings = suite(sweep=sweep, search=search, detectors=["dpo", "knn"])
    with pytest.raises(InputError, match=told):
        check_sweep(settings, ["dpo", "knn"])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"encoders": ["ecfp", "ecfp"]}, "ecfp is there twice"),
        ({"encoders": ["gpt"]}, "no view is called 'gpt'"),
        ({"encoders": [{"views": "ecfp", "colour": 1}]}, "unknown key 'colour'"),
        ({"encoders": [{"name": "x"}]}, "has no views"),
        ({"encoders": [{"views": "ecfp", "precision": "low"}]}, "'low' is no value of precision"),
        ({"encoders": [{"name": "a/b", "views": "ecfp"}]}, "has a /"),
        ({"detectors": ["auto"]}, "name them, or all"),
        ({"detectors": ["kmeans"]}, "no detector is called 'kmeans'"),
        ({"detectors": []}, "give at least one"),
        ({"detectors": ["knn", "knn"]}, "knn is there twice"),
    ],
)
def test_encoders_and_detectors_that_cannot_be_are_told(changes, told):
    with pytest.raises(InputError, match=told):
        encoders_asked(suite(**{"encoders": ["ecfp"], **changes}))
        detectors_asked(suite(**changes))
