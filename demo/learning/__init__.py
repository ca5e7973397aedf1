"""The learning loop on drawn scenes: a simulated team with words of its own, through the real service."""
