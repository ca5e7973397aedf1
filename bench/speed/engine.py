"""Many questions on one image: the released code's way against the engine's, in one run.

    python -m bench.speed.engine --preset mid --regions 8 --questions 4 --new-tokens 12
    python -m bench.speed.engine --sweep --memory --out bench/results/...     # 1, 5, 20, 80 regions; peak memory

Random weights of a stated size on one CPU thread (or a GPU). All ways must give the same answers, otherwise nothing
is timed. `engine_ways.py` has the ways, `engine_limit.py` the floor that they are compared with.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

from bench.harness import report
from bench.speed.engine_limit import floor_flops, matmul_rate
from bench.speed.engine_setting import PRESETS, Setting, make_setting
from bench.speed.engine_ways import Way, ways_of
from osprey_model.engine.engine import Osprey
from osprey_model.engine.requests import RegionRequest

SWEEP = (1, 5, 20, 80)
SLOW_WAYS_UP_TO = 80  # questions; beyond, their time is scaled, because every question costs the same
MEMORY_REGIONS = (10, 100, 1000)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    preset: Annotated[str, typer.Option(help=f"Size of the model: {', '.join(PRESETS)}.")] = "mid",
    regions: Annotated[int, typer.Option(help="Number of regions.", min=1)] = 8,
    questions: Annotated[int, typer.Option(help="Questions per region.", min=1)] = 4,
    new_tokens: Annotated[int, typer.Option(help="Tokens per answer.", min=1)] = 12,
    repeats: Annotated[int, typer.Option(help="Runs of the shared way; the others run once.", min=1)] = 3,
    device: Annotated[str, typer.Option(help="Device: cpu or cuda.")] = "cpu",
    sweep: Annotated[bool, typer.Option(help=f"Also measure {SWEEP} regions.")] = False,
    memory: Annotated[bool, typer.Option(help=f"Also measure peak memory with {MEMORY_REGIONS} regions.")] = False,
    out: Annotated[Path | None, typer.Option(help="Also write the JSON to this file.")] = None,
) -> None:
    """Check that all ways agree, time them and print a table; the last line is JSON."""
    torch.set_num_threads(1)
    setting, clock = make_setting(preset, new_tokens, device), _clock(device)
    ways, rate = ways_of(setting), matmul_rate(setting)
    image_s = _image_seconds(setting, clock, repeats)
    bench = _EngineBench(setting, ways, clock, rate, image_s)
    counts = sorted({regions, *(SWEEP if sweep else ())})
    rows = [bench.measure(count, questions, repeats) for count in counts]
    Console().print(_table(rows, rate, image_s))
    asked = next(row for row in rows if row["regions"] == regions)
    figures: dict[str, Any] = {
        "preset": preset,
        "device": device,
        "threads": torch.get_num_threads(),
        "questions_per_region": questions,
        "new_tokens": new_tokens,
        **asked,
        "matmul_gflops": round(rate / 1e9, 1),
        "image_s": round(image_s, 3),
    }
    if sweep:
        figures["sweep"] = rows
        figures["seconds_per_region"], figures["seconds_for_the_image"], figures["largest_error_of_the_line"] = _line(
            [(row["regions"], row["shared_s"]) for row in rows]
        )
        print(
            f"cost = {figures['seconds_for_the_image']} s + {figures['seconds_per_region']} s per region; "
            f"largest relative error of this line: {figures['largest_error_of_the_line']:.0%}"
        )
    if memory:
        figures["peak_memory_mib"] = _memory(setting, device)
        print("peak memory above the loaded model, MiB:", figures["peak_memory_mib"])
    report("many questions on one image", figures, out)


@dataclass(frozen=True, slots=True)
class _EngineBench:
    """The ways to compare on one setting, with the figures that their floor is computed from.

    Attributes:
        setting: model, image and questions.
        ways: the ways by name.
        clock: seconds.
        rate: measured FLOP/s of a matmul.
        image_s: measured seconds of tower, projector and prefix.
    """

    setting: Setting
    ways: dict[str, Way]
    clock: Callable[[], float]
    rate: float
    image_s: float

    def measure(self, num_regions: int, num_questions: int, repeats: int) -> dict[str, Any]:
        """Time all ways on `num_regions` regions with `num_questions` questions each.

        Raises:
            SystemExit: the ways give different answers.
        """
        asked = self.setting.regions(num_regions, num_questions)
        total = num_regions * num_questions
        fewer = asked[: max(1, min(num_regions, SLOW_WAYS_UP_TO // num_questions))]
        share = total / (len(fewer) * num_questions)
        seconds: dict[str, list[float]] = {name: [] for name in self.ways}
        self.ways["shared"](asked)  # warm-up: allocates the slots
        for idx in range(repeats):
            answers = {}
            for name, way in self.ways.items():
                if idx and name != "shared":
                    continue
                of_way = asked if name == "shared" else fewer
                started = self.clock()
                answers[name] = way(of_way)
                seconds[name].append((self.clock() - started) * (1 if name == "shared" else share))
            for name, texts in answers.items():
                differing = sum(one != other for one, other in zip(texts, answers["shared"], strict=False))
                # bfloat16 rounds differently in batches of another size; in float32 every answer must agree.
                if differing > (0 if self.setting.model.dtype == torch.float32 else 0.01 * len(texts)):
                    raise SystemExit(f"{differing} of {len(texts)} answers of {name!r} differ from 'shared': no timing")
        typical = {name: statistics.median(times) for name, times in seconds.items()}
        floor_s = self.image_s + floor_flops(self.setting, asked) / self.rate
        return {
            "regions": num_regions,
            "questions": total,
            **{f"{name}_s": round(times, 3) for name, times in typical.items()},
            "scaled_from_questions": None if share == 1 else len(fewer) * num_questions,
            "speedup": round(typical["plain"] / typical["shared"], 2),
            "limit_s": round(floor_s, 3),
            "limit_speedup": round(typical["plain"] / floor_s, 2),
            "of_limit": round(floor_s / typical["shared"], 2),
        }


def _image_seconds(setting: Setting, clock: Callable[[], float], repeats: int) -> float:
    """Return the seconds of tower, projector and prefix of an image that is not cached."""
    osprey = Osprey(setting.model, setting.tokenizer, model_version="bench", cache_bytes=0)
    times = []
    for idx in range(repeats + 1):
        started = clock()
        osprey.warm(setting.image, f"image {idx}")
        times.append(clock() - started)
    return statistics.median(times[1:])


def _line(points: Sequence[tuple[int, float]]) -> tuple[float, float, float]:
    """Return slope and intercept of the least-squares line of relative errors, and the largest of these errors."""
    weights = [1 / seconds**2 for _, seconds in points]
    total = sum(weights)
    mean_x = sum(w * x for w, (x, _) in zip(weights, points, strict=True)) / total
    mean_y = sum(w * y for w, (_, y) in zip(weights, points, strict=True)) / total
    slope = sum(w * (x - mean_x) * (y - mean_y) for w, (x, y) in zip(weights, points, strict=True)) / sum(
        w * (x - mean_x) ** 2 for w, (x, _) in zip(weights, points, strict=True)
    )
    start = mean_y - slope * mean_x
    worst = max(abs(start + slope * x - y) / y for x, y in points)
    return round(slope, 4), round(start, 3), round(worst, 3)


def _memory(setting: Setting, device: str) -> dict[str, float]:
    """Return the peak memory above what is in use before the call, with one question per region."""
    osprey = Osprey(setting.model, setting.tokenizer, model_version="bench", cache_bytes=0)
    osprey.describe(setting.image, setting.regions(1, 1))
    before = _used_bytes(device)
    peaks = {}
    for count in MEMORY_REGIONS:
        asked: list[RegionRequest] = setting.regions(count, 1)
        _forget_peak(device)
        osprey.describe(setting.image, asked)
        peaks[str(count)] = round((_peak_bytes(device) - before) / 2**20, 1)
    return peaks


def _forget_peak(device: str) -> None:
    if device == "cpu":
        with contextlib.suppress(PermissionError):  # then the result is the peak of the whole run, an upper bound
            Path("/proc/self/clear_refs").write_text("5")
    else:
        torch.cuda.reset_peak_memory_stats()


def _peak_bytes(device: str) -> int:
    if device != "cpu":
        return torch.cuda.max_memory_allocated()
    return _of_process("VmHWM")


def _used_bytes(device: str) -> int:
    return _of_process("VmRSS") if device == "cpu" else torch.cuda.memory_allocated()


def _of_process(name: str) -> int:
    status = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in status if line.startswith(name))


def _clock(device: str) -> Callable[[], float]:
    if device == "cpu":
        return time.process_time  # one thread's CPU time, so that other processes do not count

    def after_the_gpu() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    return after_the_gpu


def _table(rows: Sequence[dict[str, Any]], rate: float, image_s: float) -> Table:
    title = f"Seconds; image {image_s:.2f} s, matmul {rate / 1e9:.0f} GFLOP/s; (x) scaled from fewer questions"
    shown = Table(
        "regions", "questions", "plain", "batched", "one by one", "shared", "speedup", "limit", "of it", title=title
    )
    for row in rows:
        mark = "" if row["scaled_from_questions"] is None else " (x)"
        slow = [f"{row[f'{name}_s']:.2f}{mark}" for name in ("plain", "batched", "one_by_one")]
        shown.add_row(
            str(row["regions"]),
            str(row["questions"]),
            *slow,
            f"{row['shared_s']:.2f}",
            f"{row['speedup']:.1f}x",
            f"{row['limit_speedup']:.1f}x",
            f"{row['of_limit']:.0%}",
        )
    return shown


if __name__ == "__main__":
    app()
