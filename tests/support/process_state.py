"""A pytest plugin that records the state of the process before each test, and compares and restores it afterwards.

A thread count, an environment variable or a log level that a test changes would affect the next tests: they would pass
alone and fail together, or the other way round. `KeepProcess` is the plugin; `tests/conftest.py` registers it.

The state is recorded before the first fixture and compared after the last one. A fixture of a module or a session may
therefore not change the state during its lifetime either; the first test that uses it fails. Random states and
accelerate's singletons are restored without a failure, because using them is no fault. Warning filters are not
recorded, because pytest itself restores them after every test.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import logging
import multiprocessing
import os
import random
import signal
import socket
import sys
from collections.abc import Callable, Generator, Iterable, Mapping
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

ABSENT = "<absent>"  # the value of what is not there
# pytest's own, and what torch sets for its child processes when its compiler is first imported.
_NOT_OURS = frozenset({"PYTEST_CURRENT_TEST", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"})
# SIGALRM is pytest-timeout's.
_SIGNALS = sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGALRM})

Values = dict[str, Any]  # the name in a message -> the value


class Watched(NamedTuple):
    """One kind of process-wide state.

    Attributes:
        read: all values of the kind; keys may come and go.
        write: put one value back; ABSENT removes it.
        is_import: whether a changed value comes from the modules that the test was the first to import.
    """

    read: Callable[[], Values]
    write: Callable[[str, Any], None]
    is_import: Callable[[str, Any, frozenset[str]], bool] = lambda _key, _value, _modules: False


# --- the process -------------------------------------------------------------------------------------------------


def _read_environment() -> Values:
    return {f"os.environ[{name!r}]": value for name, value in os.environ.items() if name not in _NOT_OURS}


def _write_environment(key: str, value: Any) -> None:
    name = key.removeprefix("os.environ['").removesuffix("']")
    if value is ABSENT:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def _set_by_opencv(key: str, _value: Any, modules: frozenset[str]) -> bool:
    """Whether OpenCV set its search paths; it does so once, when it is imported."""
    return "cv2" in modules and key in ("os.environ['LD_LIBRARY_PATH']", "os.environ['QT_QPA_FONTDIR']")


def _read_signals() -> Values:
    return {f"handler of signal {number}": signal.getsignal(number) for number in _SIGNALS}


def _torch_loader(_key: str, value: Any, _modules: frozenset[str]) -> bool:
    """Whether torch's DataLoader watches its processes; it installs that handler once and for good."""
    return getattr(value, "__module__", None) == "torch.utils.data._utils.signal_handling"


def _write_signal(key: str, value: Any) -> None:
    if value is not None:  # None: not set from Python, so Python cannot set it again
        signal.signal(int(key.rpartition(" ")[2]), value)


def _folder() -> str:
    try:
        return str(Path.cwd())
    except FileNotFoundError:
        return "<a removed folder>"


def _mask() -> int:
    current = os.umask(0o077)  # there is no way to read it without writing it
    os.umask(current)
    return current


def _start_method() -> str:
    """How multiprocessing starts processes; asking for the default would fix it."""
    return multiprocessing.get_start_method(allow_none=True) or multiprocessing.get_all_start_methods()[0]


def _set_niceness(value: int) -> None:
    with contextlib.suppress(PermissionError):  # only root may go back
        os.setpriority(os.PRIO_PROCESS, 0, value)


def _set_path(value: tuple[str, ...]) -> None:
    sys.path[:] = value


_PROCESS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "working directory": (_folder, os.chdir),
    "umask": (_mask, os.umask),
    "niceness": (lambda: os.getpriority(os.PRIO_PROCESS, 0), _set_niceness),
    "sys.path": (lambda: tuple(sys.path), _set_path),
    "multiprocessing's start method": (
        _start_method,
        lambda value: multiprocessing.set_start_method(value, force=True),
    ),
    "socket.getdefaulttimeout()": (socket.getdefaulttimeout, socket.setdefaulttimeout),
}


# --- logging -----------------------------------------------------------------------------------------------------


def _fields(logger: logging.Logger) -> tuple[Any, ...]:
    return logger.level, logger.propagate, logger.disabled, tuple(logger.handlers), tuple(logger.filters)


def _read_loggers() -> Values:
    """The root, and each logger that was configured; the others are as `getLogger` makes them."""
    found: Values = {
        f"logger {name}": _fields(logger)
        for name, logger in logging.root.manager.loggerDict.items()
        if isinstance(logger, logging.Logger)
        and (logger.level or not logger.propagate or logger.disabled or logger.handlers or logger.filters)
    }
    found["logger root"] = _fields(logging.root)
    found["logging.disable"] = logging.root.manager.disable
    found["logging.captureWarnings"] = logging._warnings_showwarning is not None  # type: ignore[attr-defined]
    return found


def _write_logger(key: str, value: Any) -> None:
    if key == "logging.disable":
        logging.disable(value)
        return
    if key == "logging.captureWarnings":
        logging.captureWarnings(value)
        return
    name = key.removeprefix("logger ")
    logger = logging.root if name == "root" else logging.getLogger(name)
    level, propagate, disabled, handlers, filters = (0, True, False, (), ()) if value is ABSENT else value
    logger.setLevel(level)
    logger.propagate, logger.disabled = propagate, disabled
    logger.handlers[:], logger.filters[:] = handlers, filters


class _Loggers:
    """Knows which loggers there were: a library may configure new ones of its own when it is imported."""

    def __init__(self) -> None:
        self._before: frozenset[str] = frozenset()

    def remember(self) -> None:
        self._before = frozenset(logging.root.manager.loggerDict)

    def is_import(self, key: str, _value: Any, modules: frozenset[str]) -> bool:
        name = key.removeprefix("logger ")
        return bool(modules) and name != key and name != "root" and name not in self._before


# --- torch and transformers, where they are loaded ----------------------------------------------------------------


def _torch_settings(torch: Any) -> dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]]:
    """Return a function that reads and one that sets each of torch's settings."""

    def flag(owner: Any, name: str) -> tuple[Callable[[], Any], Callable[[Any], Any]]:
        return (lambda: getattr(owner, name)), (lambda value: setattr(owner, name, value))

    def deterministic() -> tuple[bool, bool]:
        return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()

    return {
        "torch.get_num_threads()": (torch.get_num_threads, torch.set_num_threads),
        # torch allows one change per process, so a change by a test is reported but cannot be undone.
        "torch.get_num_interop_threads()": (torch.get_num_interop_threads, lambda _: None),
        "torch.get_default_dtype()": (torch.get_default_dtype, torch.set_default_dtype),
        "torch.get_default_device()": (lambda: str(torch.get_default_device()), torch.set_default_device),
        "torch.use_deterministic_algorithms": (
            deterministic,
            lambda value: torch.use_deterministic_algorithms(value[0], warn_only=value[1]),
        ),
        "torch.is_grad_enabled()": (torch.is_grad_enabled, torch.set_grad_enabled),
        "torch.backends.cudnn.deterministic": flag(torch.backends.cudnn, "deterministic"),
        "torch.backends.cudnn.benchmark": flag(torch.backends.cudnn, "benchmark"),
        "torch.get_float32_matmul_precision()": (
            torch.get_float32_matmul_precision,
            torch.set_float32_matmul_precision,
        ),
    }


class _Torch:
    """Torch's settings, if it is loaded. If a test loads it, its settings after the import count as those before."""

    def __init__(self) -> None:
        self.settings: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {}
        self.fresh: Values = {}
        if _loaded("torch"):
            self.first_seen()
        else:
            sys.meta_path.insert(0, _AfterImport("torch", self.first_seen))

    def first_seen(self) -> None:
        self.settings = _torch_settings(sys.modules["torch"])
        self.fresh = self.read()

    def read(self) -> Values:
        return {name: get() for name, (get, _) in self.settings.items()}

    def write(self, key: str, value: Any) -> None:
        self.settings[key][1](value)


class _AfterImport(importlib.abc.MetaPathFinder):
    """An import hook that calls a function once, after the first import of a module."""

    def __init__(self, name: str, then: Callable[[], None]) -> None:
        self._name, self._then = name, then

    def find_spec(
        self, fullname: str, _path: Any = None, _target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return the spec that the other finders give, with a loader that also calls the function."""
        if fullname != self._name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            load, then = spec.loader.exec_module, self._then

            def load_and_call(module: ModuleType) -> None:
                load(module)
                then()

            spec.loader.exec_module = load_and_call  # type: ignore[method-assign]
        return spec


def _loaded(name: str) -> bool:
    """Return whether a module is completely loaded; during its import, attributes are still missing."""
    module = sys.modules.get(name)
    return module is not None and not getattr(getattr(module, "__spec__", None), "_initializing", False)


_AUTO = "transformers.models.auto"
_AUTO_MODULES = tuple(f"{_AUTO}.{kind}_auto" for kind in ("configuration", "modeling", "tokenization", "processing"))
_registries: dict[str, dict[str, Mapping[Any, Any]]] = {}


def _registries_of(module: str) -> dict[str, Mapping[Any, Any]]:
    """Return the mappings of one Auto module that `register` writes to. They exist once per module."""
    if module not in _registries and _loaded(module):
        _registries[module] = {
            name: value._extra_content
            for name, value in vars(sys.modules[module]).items()
            if isinstance(getattr(value, "_extra_content", None), dict)
        }
    return _registries.get(module, {})


def _read_registered() -> Values:
    return {
        f"{module.rpartition('.')[2]}.{mapping}[{getattr(key, '__name__', key)}]": (module, mapping, key, registered)
        for module in _AUTO_MODULES
        for mapping, extra in _registries_of(module).items()
        for key, registered in extra.items()
    }


class _Registered:
    """The classes that were registered with transformers' Auto classes."""

    def __init__(self) -> None:
        self._known: Values = {}

    def read(self) -> Values:
        self._known |= (now := _read_registered())
        return now

    def write(self, key: str, value: Any) -> None:
        module, mapping, name, _ = self._known[key] if value is ABSENT else value
        extra: Any = _registries_of(module)[mapping]
        if value is ABSENT:
            del extra[name]
        else:
            extra[name] = value[3]


def _registered_by_import(_key: str, value: Any, modules: frozenset[str]) -> bool:
    """Whether the registered class, or its config where the value is a plain name, came with a new module."""
    return value is not ABSENT and any(getattr(each, "__module__", None) in modules for each in value[2:])


# --- restored without a failure -----------------------------------------------------------------------------------


def _random_states() -> list[tuple[Callable[[Any], Any], Any]]:
    states: list[tuple[Callable[[Any], Any], Any]] = [(random.setstate, random.getstate())]
    if _loaded("numpy"):
        numpy_random = sys.modules["numpy"].random
        states.append((numpy_random.set_state, numpy_random.get_state()))
    if _loaded("torch"):
        torch = sys.modules["torch"]
        states.append((torch.set_rng_state, torch.get_rng_state()))
    return states


def _seed_torch(seed: int) -> None:
    """Seed torch, because pytest-randomly seeds only `random` and numpy before each test."""
    if _loaded("torch"):
        sys.modules["torch"].default_generator.manual_seed(seed)  # `torch.manual_seed` would initialise every device


def _forget_accelerator() -> None:
    """Reset accelerate's state, so that the next Trainer determines device and precision as in a new process."""
    if _loaded("accelerate.state"):
        state = sys.modules["accelerate.state"]
        for name in ("AcceleratorState", "GradientState", "PartialState"):
            getattr(state, name)._shared_state.clear()


# --- the plugin ---------------------------------------------------------------------------------------------------


def _plain(parts: Mapping[str, tuple[Callable[[], Any], Callable[[Any], Any]]]) -> Watched:
    return Watched(
        read=lambda: {name: get() for name, (get, _) in parts.items()},
        write=lambda key, value: parts[key][1](value),
    )


class KeepProcess:
    """The pytest plugin: a test that changes the state of the process fails, and the state is restored."""

    def __init__(self) -> None:
        torch, registered = _Torch(), _Registered()
        self._seed, self._torch, self._loggers = 0, torch, _Loggers()
        self._watched = (
            Watched(_read_environment, _write_environment, _set_by_opencv),
            Watched(_read_signals, _write_signal, _torch_loader),
            _plain(_PROCESS),
            Watched(_read_loggers, _write_logger, self._loggers.is_import),
            Watched(torch.read, torch.write),
            Watched(registered.read, registered.write, _registered_by_import),
        )
        self._before: list[Values] = []
        self._random: list[tuple[Callable[[Any], Any], Any]] = []
        self._num_modules = 0

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Take pytest-randomly's seed, which it has chosen by now."""
        self._seed = session.config.getoption("randomly_seed", 0)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self) -> Generator[None, object, object]:
        """Record the state before any fixture of the test."""
        self._num_modules = len(sys.modules)
        self._loggers.remember()
        self._before = [watched.read() for watched in self._watched]
        self._random = _random_states()
        _seed_torch(self._seed)
        return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self) -> Generator[None, object, object]:
        """Compare and restore the state after all fixtures of the test; an error of a fixture is reported first."""
        leaks: list[str] = []
        try:
            result = yield
        finally:
            leaks = self._put_back()
        if leaks:
            pytest.fail("the test, or a fixture it set up, changed the process: " + "; ".join(leaks), pytrace=False)
        return result

    def _put_back(self) -> list[str]:
        """Restore the state; return a description of each change that the test left."""
        leaks = [leak for watched, before in zip(self._watched, self._before, strict=True)
                 for leak in self._put_back_kind(watched, before)]  # fmt: skip
        for write, state in self._random:
            write(state)
        _forget_accelerator()
        return leaks

    def _put_back_kind(self, watched: Watched, before: Values) -> Iterable[str]:
        now = watched.read()
        if now == before:
            return
        modules = frozenset(islice(sys.modules, self._num_modules, None))  # a dict keeps the order of its keys
        for key in sorted(before.keys() | now.keys()):
            old, new = before.get(key, self._torch.fresh.get(key, ABSENT)), now.get(key, ABSENT)
            if old == new or watched.is_import(key, new, modules):
                continue
            watched.write(key, old)
            yield f"{key} was {old!r}, is {new!r}"
