"""Start and stop `osprey worker --queues data` in tests: the real process, without torch."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from job_queue.queue import JobQueue

CHECKOUT = Path(__file__).resolve().parents[2]
# Importing torch is an error, as in a container image without it.
START = "import sys; sys.modules['torch'] = None\nfrom cli.main import app; app(['worker', '--queues', 'data'])"


class DataWorker:
    """One worker process of the `data` queue, or of another one with `start`."""

    def __init__(
        self, redis_url: str, label_studio_url: str, token: str, folder: Path, *, start: str = START, **environ: str
    ) -> None:
        self.database_url = environ.get("OSPREY_DATABASE_URL", f"sqlite:///{folder}/corrections.db")
        settings = {
            "OSPREY_REDIS_URL": redis_url,
            "OSPREY_LABEL_STUDIO_URL": label_studio_url,
            "OSPREY_LABEL_STUDIO_TOKEN": token,
            "OSPREY_DATABASE_URL": self.database_url,
            "OSPREY_CACHE_DIR": str(folder / "cache"),
            "OSPREY_BLIND_SHARE": "0",
            "PYTHONPATH": str(CHECKOUT),
        }
        self.log_path = folder / f"data-{time.monotonic_ns()}.log"
        self._queue = JobQueue(redis_url)
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", start],
                env={**os.environ, **settings, **environ}, cwd=CHECKOUT, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def wait_until_ready(self, timeout_s: float = 40.0, queue: str = "data") -> None:
        """Wait until its heartbeat says that it serves the queue."""
        deadline = time.monotonic() + timeout_s
        while not any(
            beat.pid == self.process.pid and queue in beat.model_versions for beat in self._queue.health().workers
        ):
            assert self.process.poll() is None, self.log_path.read_text()
            assert time.monotonic() < deadline, self.log_path.read_text()
            time.sleep(0.05)

    @property
    def memory_bytes(self) -> int:
        """Resident memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS"))

    def stop(self) -> int:
        """End it with SIGTERM and return its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=20)

    def kill(self) -> None:
        """End it with SIGKILL."""
        self.process.kill()
        self.process.wait()
