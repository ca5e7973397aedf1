"""What is true of drawn scenes, as export versions: what a fine-tune replays, and what no candidate may forget."""
