"""What jobs.screen says at its end."""

from __future__ import annotations

from pipeline.scoring.verdict_text import verdict_lines

VERDICT = {
    "molecules": 1010, "in_training": 10, "inside": 750, "outside": 250,
    "median_similarity": {"inside": 0.61, "outside": 0.24}, "warning": None,
}  # fmt: skip
ERRORS = {
    "inside": 0.41, "outside": 0.82, "best_fifth_up_to": 0.3, "worst_fifth_from": 0.9, "without": 0
}  # fmt: skip


def told(**changed) -> str:
    return "\n".join(verdict_lines({**VERDICT, **changed}))


def test_shares_are_of_molecules_that_are_not_in_the_training_set():
    assert "750 (75 %) look like the training set" in told()
    assert "250 (25 %) lie outside of it (median Tanimoto 0.24)" in told()
    assert "came without --label_column" in told()


def test_expected_errors_are_told_of_the_kinds_that_there_are():
    assert "median: 0.41 inside, 0.82 outside\n" in told(expected_error=ERRORS)
    assert "median: 0.41 inside\n" in told(expected_error={**ERRORS, "outside": None})
    assert "12 molecules have no prediction" in told(expected_error={**ERRORS, "without": 12})


def test_a_line_that_a_simple_measure_draws_is_said_to_be_easy():
    warning = (
        "rings alone has AUROC 0.97 on these molecules, the model 0.98: this split says little"
    )
    line = told(warning=warning).splitlines()[-1]
    assert line == (
        "the line between inside and outside is an easy one to draw: rings alone has AUROC 0.97 on "
        "validation molecules, the model 0.98"
    )
