"""Claims about the arithmetic of the benchmarks."""

from __future__ import annotations

import json

import pytest

from bench.harness import percentile, repeat, report, summary
from bench.speed.click import server_timing


def test_percentiles_are_nearest_rank() -> None:
    values = [float(value) for value in range(20, 0, -1)]
    assert (percentile(values, 50), percentile(values, 95), percentile(values, 100)) == (10.0, 19.0, 20.0)
    assert percentile([3.0], 95) == 3.0
    assert summary(values) == {"p50_s": 10.0, "p95_s": 19.0, "max_s": 20.0, "count": 20}


def test_no_values_is_an_error() -> None:
    with pytest.raises(ValueError, match="did every repetition fail"):
        percentile([], 50)


def test_repeat_leaves_out_the_warm_up_and_waits_for_the_device() -> None:
    calls: list[str] = []
    times_s = repeat(lambda: calls.append("run"), warmup=2, repeats=3, sync=lambda: calls.append("sync"))
    assert len(times_s) == 3
    assert calls == ["run", "sync"] * 5


def test_the_last_line_is_json_with_hardware(capsys: pytest.CaptureFixture[str], tmp_path) -> None:
    report("nothing", {"p50_s": 1.0}, tmp_path / "results" / "nothing.json")
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert printed == json.loads((tmp_path / "results" / "nothing.json").read_text())
    assert printed["hardware"]["cores"] >= 1


def test_server_timing_is_read_in_seconds() -> None:
    assert server_timing("segment.embed;dur=12.5, total;dur=1000.0") == {"segment.embed": 0.0125, "total": 1.0}
    assert server_timing("") == {}
