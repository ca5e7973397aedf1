"""Training data: conversations as ids and labels, batches of them, and readers for the paper's data sets."""
