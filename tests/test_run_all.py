"""`make test` runs both parts whatever the first one does, fails if one fails, and counts both."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests import run_all

REPORT = """<testsuites><testsuite>
<testcase classname="tests.cli.test_worker" name="test_a" />
<testcase classname="tests.cli.test_worker" name="test_b[1]"><failure message="x">y</failure></testcase>
<testcase classname="tests.cli.test_worker" name="test_c"><skipped message="x" /></testcase>
<testcase classname="tests.cli.test_worker" name="test_d"><error message="x" /></testcase>
</testsuite></testsuites>"""


def outcome(name: str, exit_code: int, **counts: int) -> run_all.Outcome:
    return run_all.Outcome(
        name, exit_code, 10.0, Counter(counts), [f"FAILED {name}.py::test"] * counts.get("failed", 0)
    )


def test_a_report_is_counted(tmp_path: Path) -> None:
    """Each test once, failures and errors by their names."""
    path = tmp_path / "shared.xml"
    path.write_text(REPORT)
    counts, failures = run_all.read_report(path)
    assert counts == {"passed": 1, "failed": 1, "skipped": 1, "error": 1}
    assert failures == ["FAILED tests/cli/test_worker.py::test_b[1]", "ERROR tests/cli/test_worker.py::test_d"]


def test_a_part_without_a_report_is_an_error(tmp_path: Path) -> None:
    """It was killed, or pytest did not start."""
    counts, failures = run_all.read_report(tmp_path / "alone.xml")
    assert counts == {"error": 1}
    assert failures == ["ERROR alone: pytest ended before it wrote its report"]


@pytest.mark.parametrize(("codes", "expected"), [((0, 0), 0), ((1, 0), 1), ((0, 1), 1), ((2, 5), 2)])
def test_both_parts_run_and_either_fails(
    codes: tuple[int, int], expected: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:  # fmt: skip
    """The total is the last line."""
    ended = dict(zip(("shared", "alone"), codes, strict=True))
    monkeypatch.setattr(run_all, "REPORTS", tmp_path / "reports")
    monkeypatch.setattr(
        run_all.Part,
        "run",
        lambda part, _: outcome(part.name, ended[part.name], passed=3, failed=int(part.name == "alone")),
    )
    assert run_all.main("not gpu") == expected
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == [
        "FAILED alone.py::test", "===== 1 failed, 6 passed in 20.00s (shared 10s + alone 10s) =====",
    ]  # fmt: skip


def test_one_core_needs_no_processes() -> None:
    """Side by side only where there are two; what runs alone never is."""
    assert [part.options for part in run_all.parts(1)] == [(), ("-p", "no:randomly")]
    shared, alone = run_all.parts(3)
    assert shared.options == ("-n", "3", "--dist", "loadscope")
    assert shared.environment == {"OMP_NUM_THREADS": "1"}
    assert alone.environment == {}
