"""Published checkpoints: where they are, and a download that continues and verifies."""
