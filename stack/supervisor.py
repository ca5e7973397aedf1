"""Control supervisord, which runs the components and restarts those that end.

supervisord survives the command that starts it; later commands find it by its port and password. If supervisord itself
is killed, `end_leftovers` finds its children by a mark in their environment.
"""

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
_ANSWER_LIMIT_S = 3 * STOP_LIMIT_S  # a call that stops a component returns only when the component has ended
# Environment variables with the paths for supervisord: in its configuration file, blanks, `%`, `;` and `#` in a path
# would have a meaning of their own.
_RUN, _CHECKOUT = "OSPREY_STACK_RUN", "OSPREY_STACK_CHECKOUT"


class SupervisorAway(StackError):
    """supervisord does not answer."""


@dataclass(frozen=True)
class ProcessState:
    """The process of a component. `name` is supervisord's name of its state; see `Supervisor.component_state`."""

    name: str
    pid: int
    started_at: int
    ended: str  # how its last process ended, such as "exit status 3"; empty: none has ended

    @property
    def has_ended(self) -> bool:
        """Whether it was started and does not run now."""
        return self.name in ("BACKOFF", "EXITED", "FATAL")


class Supervisor:
    """The client of a stack's supervisord, over its password-protected port on loopback."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        port, password = stack.launch.ports["supervisor"], stack.secrets.supervisor_password
        self._url = f"http://osprey:{password}@127.0.0.1:{port}/RPC2"

    def is_running(self) -> bool:
        """Return whether a supervisord answers to this stack's password and belongs to this state folder.

        A copy of a state folder has the same secrets and ports, so the supervisord of the original may answer.
        """
        try:
            place = self.place()
        except (SupervisorAway, xmlrpc.client.Error):
            return False
        return place is None or _is_same_folder(place, self._stack.state.path)

    def place(self) -> Path | None:
        """Return the state folder that the running supervisord was started for; None: it cannot be determined.

        Raises:
            SupervisorAway: no supervisord runs.
        """
        try:
            mark = psutil.Process(int(self._call("getPID"))).environ().get(MARK)
        except (psutil.Error, OSError):
            return None
        return Path(mark) if mark else None

    def outdated(self) -> str | None:
        """Return why the running supervisord has to be replaced; None: this release would start it the same way."""
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
            StackError: it did not start.
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
        """Start a component, and restart it if it runs with other settings than the present ones."""
        component = next(each for each in COMPONENTS if each.name == name)
        state = self.component_state(name)
        if state == "RUNNING":
            file = self._stack.state.run / f"{name}.fingerprint"
            if file.exists() and file.read_text() == component.process(self._stack).fingerprint():
                return
        if state in ("RUNNING", "BACKOFF"):  # in BACKOFF, supervisord would wait before its next attempt
            self.stop_component(name)
        self._start(name)

    def start_base_set(self) -> None:
        """Start the process that makes base set and replay data, unless it runs."""
        self._start(BASE_SET)

    def _start(self, name: str) -> None:
        try:
            self._call("startProcess", name, False)
        except xmlrpc.client.Fault as fault:
            # Not errors here: a component that is already started; and one that fails to start, because the caller
            # reads that from its state.
            if fault.faultCode not in (Faults.ALREADY_STARTED, Faults.SPAWN_ERROR, Faults.ABNORMAL_TERMINATION):
                raise StackError(f"supervisord cannot start {name}: {fault.faultString}") from fault

    def stop_component(self, name: str) -> None:
        """Stop a component and wait until it has ended."""
        with contextlib.suppress(xmlrpc.client.Fault):  # it does not run
            self._call("stopProcess", name, True)

    def component_state(self, name: str) -> str:
        """Return the state of its process: RUNNING, STARTING, BACKOFF, STOPPED, EXITED or FATAL."""
        return str(self._call("getProcessInfo", name)["statename"])

    def component_pid(self, name: str) -> int:
        """Return its process id, 0 when it does not run."""
        return int(self._call("getProcessInfo", name)["pid"])

    def process_state(self, name: str) -> ProcessState:
        """Return everything that supervisord knows of the process of a component."""
        info = self._call("getProcessInfo", name)
        ended = str(info["spawnerr"] or (f"exit status {info['exitstatus']}" if info["stop"] else ""))
        return ProcessState(str(info["statename"]), int(info["pid"]), int(info["start"]), ended)

    def stop(self) -> None:
        """Stop the components, last started first, then supervisord, and wait until it has ended."""
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
    """A transport with a time limit, so that a supervisord that hangs does not block the caller."""

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        connection = super().make_connection(host)
        connection.timeout = _ANSWER_LIMIT_S
        return connection


def end_leftovers(state: StateFolder, places: Collection[str] = ()) -> int:
    """End every process that a supervisord of this state folder left behind.

    Args:
        state: the state folder.
        places: its former paths. A path at which a folder exists now is skipped, because that one has its own stack.

    Returns:
        The number of processes.
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
    except (psutil.Error, OSError):  # a process of another user, or one that has ended
        return None


def _is_same_folder(place: Path, folder: Path) -> bool:
    """Return whether `place` is this folder under another path, or was its path before it was moved."""
    return place == folder or not place.exists() or place.samefile(folder)


def _places(stack: Stack) -> dict[str, str]:
    command = [PYTHON, "-m", "stack.run", str(stack.state.path)]
    return {_RUN: shlex.join(command), _CHECKOUT: str(CHECKOUT)}


def _configuration(stack: Stack) -> str:
    # supervisord compares SHA-1 digests, so the file need not contain the password itself.
    digest = hashlib.sha1(stack.secrets.supervisor_password.encode()).hexdigest()
    places = hashlib.sha256(os.fsencode(repr(_places(stack)))).hexdigest()
    lines = [
        f"; places {places}",  # `outdated` compares this file: it has to differ after the folder was moved
        "[supervisord]",
        "logfile=%(here)s/../logs/supervisord.log",
        "logfile_maxbytes=5MB",
        "pidfile=%(here)s/supervisord.pid",
        "childlogdir=%(here)s/../logs",
        *(["user=root"] if os.geteuid() == 0 else []),  # without it, supervisord warns about running as root
        "[inet_http_server]",
        f"port=127.0.0.1:{stack.launch.ports['supervisor']}",
        "username=osprey",
        f"password={{SHA}}{digest}",
        "[rpcinterface:supervisor]",
        "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface",
    ]
    # supervisord waits a second longer before each attempt. There is practically no limit to the attempts, so that a
    # component recovers whenever the cause of its failure is corrected.
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
            # supervisord expands this value twice, so the percent sign is doubled.
            f"stdout_logfile=%%(here)s/../logs/{name}.log",
            "stdout_logfile_maxbytes=10MB",
            "stdout_logfile_backups=2",
        ]
    return "\n".join(lines) + "\n"
