"""Training: the paper's stages as data."""
