"""What not to trust: errors of predictions, told beforehand.

In: labelled molecules, or a table of predictions, measured values and scores. Out: an error model
that gives each molecule a prediction, an expected error and an interval; or how well scores find
errors (`jobs.trust`).

Read first: `errors` (the error model), then `models` (whose errors it tells); `run` is what
jobs.trust calls, `training` and `in_checkpoint` what jobs.train and jobs.score do.
"""
