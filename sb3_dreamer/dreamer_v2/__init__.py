"""DreamerV2: discrete world models with an imagination actor-critic (arXiv 2010.02193)."""
