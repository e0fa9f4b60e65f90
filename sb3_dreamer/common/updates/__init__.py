"""Run updates: in which precision, compiled or not, from a CUDA graph or not."""
