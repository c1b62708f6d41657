"""Molecules to features in the store, over all cores and GPUs of a cluster by Ray Data.

In: molecules and an encoder's settings. Out: features (and the trunk, if asked for) in the store,
and the molecules that cannot have any, with the reason.

Read first: `plan` (what settings mean on this cluster, decided once), then `graph` (the steps in
order), `steps` (what runs on workers), `stored_features` (what is left to do), `short_work` (when
the driver does it alone). `in_store` are the store's tables, `cost` what molecules take. `run` is
what jobs.encode calls, `cost/tuning` what jobs.tune calls.
"""
