"""Does generated data help with a rare class? Features, classes and splits in; an answer out.

A classifier learns from real training rows and from rows that some method adds to the rare class
(`methods.py`: copies, interpolations, a Gaussian, a diffusion model), its threshold is chosen on
validation, and real test rows judge it. Differences have intervals over whole groups of test rows
(`intervals.py`); a method helps only where the interval excludes 0 and all seeds agree.

Read first: `run` (what jobs.augment calls), `table` (which rows are what), `methods`.
"""
