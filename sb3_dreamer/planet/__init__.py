"""PlaNet: planning in the latent space of a Gaussian world model (arXiv 1811.04551)."""
