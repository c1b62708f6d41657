"""Training by TorchTrainer, whatever is trained: a loop in, its checkpoint and metrics out.

In Ray Train's workers (`ray_train`, read it first) or in the driver (`train_here`); learning rates
and optimisers of both.
"""
