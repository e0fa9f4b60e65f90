"""Convolutional stacks of the three papers, and images of few bits."""
