"""How an update runs: how many are owed, in which precision, from a CUDA graph or not."""
