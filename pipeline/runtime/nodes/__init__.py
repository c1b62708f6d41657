"""Ray's nodes: where it runs, what they have, plain tasks on them. Read `cluster.py` first."""
