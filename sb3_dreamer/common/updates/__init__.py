"""Run updates: how many are owed, in which precision, from a CUDA graph or not."""
