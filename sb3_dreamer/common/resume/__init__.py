"""Exact resume: a run that was interrupted equals one that was not."""
