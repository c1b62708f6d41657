"""What runs on Ray Train's workers, and what the driver hands them: features or trunk in, head out.

Read `loop.py` first.
"""
