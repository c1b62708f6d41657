"""A checkpoint and a test set to metrics, their uncertainty, cheap rivals, and each prediction.

In: the folder `checkpoint`. Out: ood_evaluation_results.json, detailed_predictions.csv.

Read first: `run` (what jobs.evaluate calls), then `metrics`, `audit` and `p_values`.
"""
