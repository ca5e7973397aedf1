"""Claims about `bench/speed/engine.py`: its ways agree, and its arithmetic is right."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from bench.speed.engine import _line, app
from bench.speed.engine_limit import floor_flops
from bench.speed.engine_setting import make_setting
from bench.speed.engine_ways import ways_of
from tests.support.torch_threads import torch_threads


def test_the_ways_give_the_same_answers() -> None:
    """All ways agree on two regions with two questions, with random weights of nano's size."""
    setting = make_setting("nano", 3, "cpu")
    asked = setting.regions(2, 2)
    answers = {name: way(asked) for name, way in ways_of(setting).items()}
    assert len(answers["shared"]) == 4
    assert len(set(map(tuple, answers.values()))) == 1


def test_the_last_line_is_json_with_a_speedup() -> None:
    """The last line of a small run is JSON with the speedup."""
    command = ["--preset", "nano", "--regions", "2", "--questions", "1", "--new-tokens", "2", "--repeats", "1"]
    with torch_threads(1):  # the benchmark sets its own number, for good
        result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    figures = json.loads(result.output.splitlines()[-1])
    assert figures["speedup"] == pytest.approx(figures["plain_s"] / figures["shared_s"], rel=0.05)
    assert figures["regions"] == 2


def test_the_floor_counts_every_question() -> None:
    """Ten regions cost ten times one; one more token costs one more pass and one more vocabulary product."""
    short, longer = make_setting("nano", 4, "cpu"), make_setting("nano", 5, "cpu")
    one = floor_flops(short, short.regions(1, 1))
    assert floor_flops(short, short.regions(10, 1)) == pytest.approx(10 * one)
    sizes = short.model.sizes
    word = 2 * sizes.hidden_size * sizes.vocab_size
    layers = 2 * sizes.num_hidden_layers * sizes.hidden_size * (4 * sizes.hidden_size + 3 * sizes.intermediate_size)
    assert floor_flops(longer, longer.regions(1, 1)) - one > word + layers


def test_the_line_through_measured_times() -> None:
    """The line has the right slope, intercept and largest relative error."""
    assert _line([(1, 1.5), (5, 3.5), (20, 11.0)]) == (0.5, 1.0, 0.0)
    assert _line([(1, 1.5), (5, 3.5), (20, 22.0)])[2] > 0.1
