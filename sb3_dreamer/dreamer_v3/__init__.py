"""DreamerV3: one set of hyperparameters for every domain (arXiv 2301.04104)."""
