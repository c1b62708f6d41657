"""Features or the trunk to a checkpoint: the head, and if asked the encoder's last layers.

In: a split file, or a training set without splits (`training_set`, its roles by `training_roles`),
and settings. Out: the folder `checkpoint`, statistics and dynamics.

Read first: `run` (what jobs.train calls), `trainer` (starts Ray Train, writes what came of it),
`worker` (what each worker runs). `checkpoints` has a checkpoint's files, `finetuning` what only
finetuning needs, `together` trains many heads as one model.
"""
