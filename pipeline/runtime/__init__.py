"""What all rooms stand on: the cluster, Ray Train, files, errors, progress and figures of a run.

In: a cluster's address, files on any filesystem. Out: a joined cluster, files written whole or not
at all, errors that a user can mend. Nothing here knows what a molecule is.

Read first: `nodes` (joining Ray, what it has), `files` (atomic writes, checksums), `train`
(training in workers or in the driver).
"""
