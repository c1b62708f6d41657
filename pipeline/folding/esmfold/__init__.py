"""Structures by ESMFold: `weights` finds the model, `model` runs it, `flow` spreads the work."""
