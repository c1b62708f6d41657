"""What a scored library leaves: its folder, and tables beside the scores.

Read `output_folder.py` first.
"""
