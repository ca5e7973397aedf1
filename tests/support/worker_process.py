"""Start and stop worker processes with fake models in tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from job_queue.queue import JobQueue

CHECKOUT = Path(__file__).resolve().parents[2]
_OSPREY = (sys.executable, "-c", "from cli.main import app; app()")


class WorkerProcess:
    """A worker in its own process. `stop` ends it like a supervisor, `kill` like the out-of-memory killer."""

    def __init__(
        self,
        redis_url: str,
        cache_dir: Path,
        queues: str = "masks,describe",
        segment_delay_s: float = 0.0,
        describe_delay_s: float = 0.0,
        environ: dict[str, str] | None = None,
    ) -> None:
        self._queue = JobQueue(redis_url)
        self._queues = queues.split(",")
        self.log_path = cache_dir / f"worker-{time.monotonic_ns()}.log"
        settings = {"OSPREY_REDIS_URL": redis_url, "OSPREY_CACHE_DIR": str(cache_dir), "PYTHONPATH": str(CHECKOUT)}
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "tests/support/fake_worker.py", queues, str(segment_delay_s), str(describe_delay_s)],
                cwd=CHECKOUT,
                env={**os.environ, **settings, **(environ or {})},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def wait_until_ready(self, timeout_s: float = 20.0) -> None:
        """Wait until every queue of this worker is served."""
        deadline = time.monotonic() + timeout_s
        while not self._is_ready():
            assert self.process.poll() is None, self.log_path.read_text()
            assert time.monotonic() < deadline, self.log_path.read_text()
            time.sleep(0.05)

    def stop(self) -> int:
        """End it with SIGTERM and return its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=15)

    def kill(self) -> None:
        """End it with SIGKILL."""
        self.process.kill()
        self.process.wait()

    def _is_ready(self) -> bool:
        health = self._queue.health()
        mine = [beat for beat in health.workers if beat.pid == self.process.pid]
        return bool(mine) and set(mine[0].model_versions) == set(self._queues)


class RealWorkerProcess(WorkerProcess):
    """`osprey worker` itself, with the models that the environment names."""

    def __init__(self, redis_url: str, folder: Path, queues: str, environ: dict[str, str]) -> None:
        self._queue = JobQueue(redis_url)
        self._queues = queues.split(",")
        self.log_path = folder / f"worker-{time.monotonic_ns()}.log"
        settings = {"OSPREY_REDIS_URL": redis_url, "OSPREY_CACHE_DIR": str(folder), "PYTHONPATH": str(CHECKOUT)}
        self._environ = {**os.environ, **settings, **environ}
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [*_OSPREY, "worker", "--queues", queues, "--device", "cpu"],
                cwd=CHECKOUT,
                env=self._environ,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `osprey ARGUMENTS` with this worker's settings."""
        return subprocess.run(
            [*_OSPREY, *arguments],
            cwd=CHECKOUT,
            env=self._environ,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
