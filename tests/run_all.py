"""`make test`: run what may share the machine on several processes, then the rest alone, and print one total.

Both parts always run, and a failure of either one is the exit code. The last lines name every failure of both parts and
count them as pytest does.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
REPORTS = ROOT / "build" / "tests"
MOST_PROCESSES = 4  # each one holds torch and the small models: about 2 GB
_KINDS = {"failure": "failed", "error": "error", "skipped": "skipped"}


@dataclass(frozen=True)
class Part:
    """One call of pytest.

    Attributes:
        name: what it is called on the screen.
        chosen: which tests, beside the caller's own expression.
        options: of pytest.
        environment: beside this process's.
    """

    name: str
    chosen: str
    options: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)

    def run(self, expression: str) -> Outcome:
        """Run it to its end; its report is on the screen already."""
        report = REPORTS / f"{self.name}.xml"
        report.unlink(missing_ok=True)
        command = [sys.executable, "-m", "pytest", "-m", f"({expression}) and {self.chosen}", f"--junitxml={report}"]
        began = time.monotonic()
        done = subprocess.run([*command, *self.options], cwd=ROOT, env={**os.environ, **self.environment}, check=False)
        return Outcome(self.name, done.returncode, time.monotonic() - began, *read_report(report))


@dataclass(frozen=True)
class Outcome:
    """How a part ended; `failures` are the lines that name them, `counts` how many tests ended how."""

    name: str
    exit_code: int
    seconds: float
    counts: Counter[str]
    failures: list[str]


def read_report(path: Path) -> tuple[Counter[str], list[str]]:
    """Count pytest's JUnit report; a part that wrote none was cut off, which is an error."""
    counts: Counter[str] = Counter()
    failures: list[str] = []
    if not path.is_file():
        return Counter(error=1), [f"ERROR {path.stem}: pytest ended before it wrote its report"]
    for case in ET.parse(path).iter("testcase"):
        ended = [_KINDS[child.tag] for child in case if child.tag in _KINDS]
        counts.update(ended or ["passed"])
        name = f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name', '')}"
        failures += [f"{kind.upper()} {name}" for kind in ended if kind != "skipped"]
    return counts, failures


def parts(num_processes: int) -> list[Part]:
    """What runs side by side, then what runs alone, in the order of its files."""
    spread = ("-n", str(num_processes), "--dist", "loadscope") if num_processes > 1 else ()
    # One thread each: processes that share cores wait for each other's threads.
    threads = {"OMP_NUM_THREADS": "1"} if num_processes > 1 else {}
    return [Part("shared", "not alone", spread, threads), Part("alone", "alone", ("-p", "no:randomly"))]


def summary(outcomes: list[Outcome]) -> str:
    """The total in pytest's words, so that the last line reads like that of one call."""
    counts = sum((outcome.counts for outcome in outcomes), Counter())
    words = [f"{counts[kind]} {kind}" for kind in ("failed", "passed", "skipped", "error") if counts[kind]]
    seconds = " + ".join(f"{outcome.name} {outcome.seconds:.0f}s" for outcome in outcomes)
    total = sum(outcome.seconds for outcome in outcomes)
    return f"{', '.join(words) or 'no tests ran'} in {total:.2f}s ({seconds})".join(("===== ", " ====="))


def main(expression: str) -> int:
    """Run both parts and print the total; the exit code is the first that is not 0."""
    REPORTS.mkdir(parents=True, exist_ok=True)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    outcomes = [part.run(expression) for part in parts(min(cores, MOST_PROCESSES))]
    print(f"\n===== both parts of: {expression} =====")
    print("\n".join(line for outcome in outcomes for line in outcome.failures))
    print(summary(outcomes), flush=True)
    return next((outcome.exit_code for outcome in outcomes if outcome.exit_code), 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
