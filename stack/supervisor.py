"""supervisord: keeps the components running, restarts what dies, and is found again after it was itself killed."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import shlex
import subprocess
import time
import xmlrpc.client
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from supervisor.xmlrpc import Faults

from stack.components import BASE_SET, COMPONENTS, Stack
from stack.settings import CHECKOUT, PYTHON, StackError
from stack.state import MARK, StateFolder, write_private

STOP_LIMIT_S = 20.0
_ANSWER_LIMIT_S = 3 * STOP_LIMIT_S  # a call that stops a component returns when it is gone
# How supervisord is told of paths: in its file blanks, `%`, `;` and `#` would mean something.
_RUN, _CHECKOUT = "OSPREY_STACK_RUN", "OSPREY_STACK_CHECKOUT"


class SupervisorAway(StackError):
    """supervisord does not answer."""


@dataclass(frozen=True)
class ProcessState:
    """A component as supervisord sees it. `name` is its word: RUNNING, STARTING, BACKOFF, STOPPED, EXITED, FATAL."""

    name: str
    pid: int
    started_at: int
    ended: str  # how it ended the last time, in words; empty: it did not

    @property
    def has_ended(self) -> bool:
        """Whether it is not there now, though it was started."""
        return self.name in ("BACKOFF", "EXITED", "FATAL")


class Supervisor:
    """Talks to the stack's supervisord over its password-protected port on loopback."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        port, password = stack.launch.ports["supervisor"], stack.secrets.supervisor_password
        self._url = f"http://osprey:{password}@127.0.0.1:{port}/RPC2"

    def is_running(self) -> bool:
        """Whether a supervisord answers to our password and works for this folder.

        In a folder that was copied with its secrets, the one that answers may be the original's.
        """
        try:
            place = self.place()
        except (SupervisorAway, xmlrpc.client.Error):
            return False
        return place is None or _is_same_folder(place, self._stack.state.path)

    def place(self) -> Path | None:
        """The state folder that the running supervisord was started for; None: it cannot be told.

        Raises:
            SupervisorAway: none runs.
        """
        try:
            mark = psutil.Process(int(self._call("getPID"))).environ().get(MARK)
        except (psutil.Error, OSError):
            return None
        return Path(mark) if mark else None

    def outdated(self) -> str | None:
        """Why the running supervisord cannot go on; None: it is as this release would start it, from here."""
        place = self.place()
        if place is not None and not place.exists():
            return f"it was started in {place}, before the folder was moved"
        file = self._stack.state.run / "supervisord.conf"
        if not file.exists() or file.read_text(encoding="utf-8") != _configuration(self._stack):
            return "it was started by another release, or from another environment"
        return None

    def start(self, environ: Mapping[str, str]) -> None:
        """Start supervisord in the background, with no component running yet.

        Raises:
            StackError: it did not come up.
        """
        file = self._stack.state.run / "supervisord.conf"
        write_private(file, _configuration(self._stack))
        done = subprocess.run(
            [PYTHON, "-W", "ignore", "-m", "supervisor.supervisord", "-c", str(file)],
            env={**environ, MARK: str(self._stack.state.path), **_places(self._stack)},
            cwd=CHECKOUT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        deadline = time.monotonic() + 10
        while not self.is_running():
            if done.returncode or time.monotonic() > deadline:
                raise StackError(
                    f"supervisord did not start: {done.stdout.strip() or 'no message'}; "
                    f"see {self._stack.state.logs / 'supervisord.log'}"
                )
            time.sleep(0.1)

    def start_component(self, name: str) -> None:
        """Start a component, or start it again when it runs with settings that are no longer the present ones."""
        component = next(each for each in COMPONENTS if each.name == name)
        state = self.component_state(name)
        if state == "RUNNING":
            file = self._stack.state.run / f"{name}.fingerprint"
            if file.exists() and file.read_text() == component.process(self._stack).fingerprint():
                return
        if state in ("RUNNING", "BACKOFF"):  # the second waits before it tries again, as it was
            self.stop_component(name)
        self._start(name)

    def start_base_set(self) -> None:
        """Let base set and replay data be made; nothing where that is under way."""
        self._start(BASE_SET)

    def _start(self, name: str) -> None:
        try:
            self._call("startProcess", name, False)
        except xmlrpc.client.Fault as fault:
            # A start that is already under way needs no second one; a spawn that failed is told by the state.
            if fault.faultCode not in (Faults.ALREADY_STARTED, Faults.SPAWN_ERROR, Faults.ABNORMAL_TERMINATION):
                raise StackError(f"supervisord cannot start {name}: {fault.faultString}") from fault

    def stop_component(self, name: str) -> None:
        """Stop a component and wait until it is gone."""
        with contextlib.suppress(xmlrpc.client.Fault):  # it was not running
            self._call("stopProcess", name, True)

    def component_state(self, name: str) -> str:
        """supervisord's word for it: RUNNING, STARTING, BACKOFF, STOPPED, EXITED, FATAL."""
        return str(self._call("getProcessInfo", name)["statename"])

    def component_pid(self, name: str) -> int:
        """Its process id, 0 when it does not run."""
        return int(self._call("getProcessInfo", name)["pid"])

    def process_state(self, name: str) -> ProcessState:
        """All that supervisord knows of a component."""
        told = self._call("getProcessInfo", name)
        ended = str(told["spawnerr"] or (f"exit status {told['exitstatus']}" if told["stop"] else ""))
        return ProcessState(str(told["statename"]), int(told["pid"]), int(told["start"]), ended)

    def stop(self) -> None:
        """Stop the components, last started first, then supervisord, and wait until it is gone."""
        daemon = psutil.Process(int(self._call("getPID")))
        for name in (BASE_SET, *(component.name for component in reversed(COMPONENTS))):
            self.stop_component(name)
        self._call("shutdown")
        _, stubborn = psutil.wait_procs([daemon], timeout=STOP_LIMIT_S)
        for process in stubborn:
            process.kill()

    def _call(self, method: str, *arguments: object) -> Any:
        try:
            with xmlrpc.client.ServerProxy(self._url, transport=_Transport()) as proxy:
                return getattr(proxy.supervisor, method)(*arguments)
        except (OSError, http.client.HTTPException, xmlrpc.client.ProtocolError) as error:
            log = self._stack.state.logs / "supervisord.log"
            raise SupervisorAway(f"supervisord does not answer ({error}); see {log}") from error


class _Transport(xmlrpc.client.Transport):
    """A connection that does not wait for ever for a supervisord that hangs."""

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        connection = super().make_connection(host)
        connection.timeout = _ANSWER_LIMIT_S
        return connection


def end_leftovers(state: StateFolder, places: Collection[str] = ()) -> int:
    """End every process that a supervisord of this state folder left behind; how many there were.

    Args:
        state: the folder.
        places: where it was before; a place where another folder is now is left alone.
    """
    marks = {str(state.path), *(place for place in places if place and not Path(place).exists())}
    leftovers = [process for process in psutil.process_iter() if _mark_of(process) in marks]
    for process in leftovers:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, stubborn = psutil.wait_procs(leftovers, timeout=STOP_LIMIT_S)
    for process in stubborn:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(stubborn, timeout=STOP_LIMIT_S)
    return len(leftovers)


def _mark_of(process: psutil.Process) -> str | None:
    try:
        return None if process.pid == os.getpid() else process.environ().get(MARK)
    except (psutil.Error, OSError):  # not ours to look into, or gone
        return None


def _is_same_folder(place: Path, folder: Path) -> bool:
    """Whether `place` is this folder by another name, or was its name before it was moved."""
    return place == folder or not place.exists() or place.samefile(folder)


def _places(stack: Stack) -> dict[str, str]:
    command = [PYTHON, "-m", "stack.run", str(stack.state.path)]
    return {_RUN: shlex.join(command), _CHECKOUT: str(CHECKOUT)}


def _configuration(stack: Stack) -> str:
    # supervisord compares the SHA-1 of what it is given: the file need not hold the password itself.
    digest = hashlib.sha1(stack.secrets.supervisor_password.encode()).hexdigest()
    told = hashlib.sha256(os.fsencode(repr(_places(stack)))).hexdigest()
    lines = [
        f"; places {told}",  # so that the file of a folder that was moved is another one
        "[supervisord]",
        "logfile=%(here)s/../logs/supervisord.log",
        "logfile_maxbytes=5MB",
        "pidfile=%(here)s/supervisord.pid",
        "childlogdir=%(here)s/../logs",
        *(["user=root"] if os.geteuid() == 0 else []),  # says that running as root is meant
        "[inet_http_server]",
        f"port=127.0.0.1:{stack.launch.ports['supervisor']}",
        "username=osprey",
        f"password={{SHA}}{digest}",
        "[rpcinterface:supervisor]",
        "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface",
    ]
    # Each try waits a second longer: whatever is wrong, it recovers when it is put right.
    kept = ("autorestart=true", "startsecs=2", "startretries=1000000")
    once = ("autorestart=false", "startsecs=0", "startretries=0")
    for name, how in (*((each.name, kept) for each in COMPONENTS), (BASE_SET, once)):
        lines += [
            f"[program:{name}]",
            f"command=%(ENV_{_RUN})s {name}",
            f"directory=%(ENV_{_CHECKOUT})s",
            "autostart=false",
            *how,
            f"stopwaitsecs={STOP_LIMIT_S:.0f}",
            "stopasgroup=true",
            "killasgroup=true",
            "redirect_stderr=true",
            # supervisord expands this one twice.
            f"stdout_logfile=%%(here)s/../logs/{name}.log",
            "stdout_logfile_maxbytes=10MB",
            "stdout_logfile_backups=2",
        ]
    return "\n".join(lines) + "\n"
