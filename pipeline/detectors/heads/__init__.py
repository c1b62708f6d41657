"""Energy heads, their losses and weights. Read `energy_head.py` first."""
