"""Folders of runs: agents, logs, curves, scores."""
