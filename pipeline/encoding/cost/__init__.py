"""What encoding takes: seconds expected and measured, and the batch sizes that take least.

Read `expected_work.py` first.
"""
