"""Gymnasium wrappers and benchmark suites; usable without torch."""
