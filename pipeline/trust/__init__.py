"""What not to trust: errors of predictions, told beforehand.

In: labelled molecules, or a table of predictions, measured values and scores. Out: an error model
that gives each molecule a prediction, an expected error and an interval; or how well scores find
errors (`jobs.trust`).

Read first: `error_model`, then `inputs` and `ranker`; for `jobs.trust`, `run`.
"""
