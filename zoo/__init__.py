"""Hyperparameter files and command-line programs."""
