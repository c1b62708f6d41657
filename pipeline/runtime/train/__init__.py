"""Training by TorchTrainer, whatever is trained. Read `ray_train.py` first."""
