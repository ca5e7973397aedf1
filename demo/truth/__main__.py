"""`python -m demo.truth FOLDER`: make the base set and the replay data that are not there."""

from __future__ import annotations

import sys
from pathlib import Path

from demo.truth.sample_sets import write_sample_sets

if __name__ == "__main__":
    write_sample_sets(Path(sys.argv[1]))
