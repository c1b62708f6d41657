"""The commands, each `python -m jobs.NAME`: parse settings, call the pipeline, tell the result."""
