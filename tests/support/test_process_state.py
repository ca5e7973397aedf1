"""Each kind of leak is found, named and put back; what is no leak passes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONFTEST = """
from tests.support.process_state import KeepProcess

def pytest_configure(config):
    config.pluginmanager.register(KeepProcess())
"""
# What a test does, and the name in the message.
LEAKS = {
    "import os; os.environ['OSPREY_LEFT'] = 'x'": "os.environ['OSPREY_LEFT'] was '<absent>', is 'x'",
    "import os; del os.environ['HOME']": "os.environ['HOME'] was",
    "import os; os.chdir('/')": "working directory was",
    "import os; os.umask(0o011)": "umask was",
    "import os; os.nice(1)": "niceness was",
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)": "handler of signal 15 was",
    "import logging; logging.getLogger().addHandler(logging.NullHandler())": "logger root was",
    "import logging; logging.getLogger('ours').setLevel(10)": "logger ours was",
    "import logging; logging.getLogger('ours').propagate = False": "logger ours was",
    "import logging; logging.getLogger('ours').disabled = True": "logger ours was",
    "import logging; logging.disable(10)": "logging.disable was 0, is 10",
    "import logging; logging.captureWarnings(True)": "logging.captureWarnings was False, is True",
    "import sys; sys.path.append('/nowhere')": "sys.path was",
    "import socket; socket.setdefaulttimeout(1)": "socket.getdefaulttimeout() was None, is 1.0",
    "import multiprocessing; multiprocessing.set_start_method('spawn', force=True)": "multiprocessing's start method",
}
TORCH_LEAKS = {
    "torch.set_num_threads(torch.get_num_threads() + 1)": "torch.get_num_threads() was",
    "torch.set_default_dtype(torch.float64)": "torch.get_default_dtype() was torch.float32, is torch.float64",
    "torch.set_default_device('meta')": "torch.get_default_device() was 'cpu', is 'meta'",
    "torch.use_deterministic_algorithms(True)": "torch.use_deterministic_algorithms was (False, False)",
    "torch.set_grad_enabled(False)": "torch.is_grad_enabled() was True, is False",
    "torch.backends.cudnn.benchmark = True": "torch.backends.cudnn.benchmark was False, is True",
    "torch.set_float32_matmul_precision('high')": "torch.get_float32_matmul_precision() was 'highest', is 'high'",
}


def outcome(folder: Path, source: str) -> str:
    """The report of a pytest run in a process of its own."""
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_it.py").write_text(source)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "-p", "no:xdist"]
    environ = {"PYTHONPATH": str(ROOT), "HOME": "/", "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, "-ra"], cwd=folder, env=environ, capture_output=True, text=True, timeout=240)
    return done.stdout + done.stderr


def with_checks(leaks: dict[str, str], *, before: str = "") -> str:
    """For each leak a test that leaks, and one that would see it."""
    body = [before]
    for number, code in enumerate(leaks):
        body.append(f"def test_{number}_leaks():\n    {before or 'pass'}\n    {code}\n")
    return "\n".join(body)


def test_every_leak_is_named_and_put_back(tmp_path: Path) -> None:
    """One error for each; the next test starts as the first did, or it would not be blamed for its own leak alone."""
    report = outcome(tmp_path, with_checks(LEAKS))
    assert f"{len(LEAKS)} passed, {len(LEAKS)} errors" in report, report
    lines = [line for line in report.splitlines() if line.startswith("the test, or a fixture it set up, changed")]
    assert len(lines) == len(LEAKS)
    for line, name in zip(lines, LEAKS.values(), strict=True):
        assert name in line
        assert ";" not in line


@pytest.mark.parametrize("before", ["import torch", ""])
def test_every_setting_of_torch_is_watched(before: str, tmp_path: Path) -> None:
    """Loaded with the test module, or by the first test that leaks: what it looked like fresh counts."""
    leaks = TORCH_LEAKS if before else {f"import torch; {code}": name for code, name in TORCH_LEAKS.items()}
    report = outcome(tmp_path, with_checks(leaks, before=before))
    assert f"{len(leaks)} passed, {len(leaks)} errors" in report, report
    for name in leaks.values():
        assert f" changed the process: {name}" in report


def test_what_is_no_leak_passes(tmp_path: Path) -> None:
    """monkeypatch, caplog, drawn numbers, a failing test, warning filters, which pytest puts back."""
    report = outcome(
        tmp_path,
        """
import logging, os, random, warnings
import pytest

def test_patched(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("OSPREY_LEFT", "x")
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.DEBUG)

def test_draws():
    global first
    first = random.random()
    warnings.simplefilter("error")

def test_draws_the_same():
    assert random.random() == first
    assert warnings.filters[0][0] != "error"

def test_fails():
    assert os.environ is None
""",
    )
    assert "1 failed, 3 passed in" in report, report


def test_a_wider_fixture_is_blamed_with_its_first_test(tmp_path: Path) -> None:
    """A module's fixture that sets a variable would decide what the module's other tests see."""
    report = outcome(
        tmp_path,
        """
import os
import pytest

@pytest.fixture(scope="module")
def variable():
    os.environ["OSPREY_LEFT"] = "x"

def test_uses_it(variable):
    pass

def test_does_not():
    assert "OSPREY_LEFT" not in os.environ
""",
    )
    assert "2 passed, 1 error" in report, report
    assert "os.environ['OSPREY_LEFT']" in report


def test_a_registered_class_is_taken_out_again(tmp_path: Path) -> None:
    """transformers' Auto classes are the whole process's; what a new module registers by itself stays."""
    report = outcome(
        tmp_path,
        """
from transformers import AutoConfig, PretrainedConfig

def test_leaks():
    class Ours(PretrainedConfig):
        model_type = "ours-for-a-test"
    AutoConfig.register("ours-for-a-test", Ours)

def test_is_gone():
    assert "ours-for-a-test" not in AutoConfig.__dict__
    import pytest
    with pytest.raises(ValueError):
        AutoConfig.for_model("ours-for-a-test")

def test_imports():
    import osprey_model.auto
""",
    )
    assert "3 passed, 1 error" in report, report
    assert "configuration_auto.CONFIG_MAPPING[ours-for-a-test]" in report
