"""A real worker process with fake models: `python tests/support/fake_worker.py QUEUES SEGMENT_S DESCRIBE_S`."""

from __future__ import annotations

import os
import sys

from tests.support.fake_models import fake_loaders
from worker.main import main

if __name__ == "__main__":
    main(os.environ, sys.argv[1].split(","), "cpu", fake_loaders(float(sys.argv[2]), float(sys.argv[3])))
