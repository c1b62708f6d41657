"""MolSieve: find the molecules that lie outside what a model was trained on."""

__version__ = "0.1.0"
