"""Parametrise the tests over the cases and readers of the golden set in use."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

SHIPPED = Path(__file__).parents[2] / "data" / "golden" / "osprey_tiny_a"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Take the values of `case_name` and `reader_name` from the golden set."""
    folder = Path(os.environ.get("OSPREY_GOLDEN_DIR", SHIPPED))
    if not (folder / "cases" / "cases.json").is_file():
        raise pytest.UsageError(f"OSPREY_GOLDEN_DIR: expected a golden set with cases/cases.json in it, got {folder}")
    for argument, file in (("case_name", "cases/cases.json"), ("reader_name", "data/expected.json")):
        if argument in metafunc.fixturenames:
            names = json.loads((folder / file).read_text())
            metafunc.parametrize(argument, [name for name in names if name != "train_batch"])
