"""Sequence replay: one ring of rows per environment, in memory or on disk."""
