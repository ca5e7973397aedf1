"""supervisord: keeps the components running, restarts what dies, and is found again after it was itself killed."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import shlex
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Mapping
from typing import Any

import psutil

from stack.components import COMPONENTS, Stack
from stack.errors import StackError
from stack.settings import CHECKOUT
from stack.state import MARK, StateFolder, write_private

STOP_LIMIT_S = 20.0


class Supervisor:
    """Talks to the stack's supervisord over its password-protected port on loopback."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        port, password = stack.launch.ports["supervisor"], stack.secrets.supervisor_password
        self._url = f"http://osprey:{password}@127.0.0.1:{port}/RPC2"

    def is_running(self) -> bool:
        """Whether supervisord answers to our password."""
        try:
            self._call("getState")
        except (OSError, xmlrpc.client.Error, http.client.HTTPException):
            return False
        return True

    def start(self, environ: Mapping[str, str]) -> None:
        """Start supervisord in the background, with no component running yet.

        Raises:
            StackError: it did not come up.
        """
        file = self._stack.state.run / "supervisord.conf"
        write_private(file, _configuration(self._stack))
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "supervisor.supervisord", "-c", str(file)],
            env={**environ, MARK: str(self._stack.state.path)},
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
        if self.component_state(name) == "RUNNING":
            file = self._stack.state.run / f"{name}.fingerprint"
            if file.exists() and file.read_text() == component.process(self._stack).fingerprint():
                return
            self.stop_component(name)
        # A start that is already under way, or waiting to be tried again, needs no second one.
        with contextlib.suppress(xmlrpc.client.Fault):
            self._call("startProcess", name, False)

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

    def stop(self) -> None:
        """Stop the components, last started first, then supervisord."""
        for component in reversed(COMPONENTS):
            self.stop_component(component.name)
        self._call("shutdown")

    def _call(self, method: str, *arguments: object) -> Any:
        with xmlrpc.client.ServerProxy(self._url) as proxy:
            return getattr(proxy.supervisor, method)(*arguments)


def end_leftovers(state: StateFolder) -> int:
    """End every process that a supervisord of this state folder left behind; how many there were."""
    leftovers = [process for process in psutil.process_iter() if _belongs_to(process, state)]
    for process in leftovers:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, stubborn = psutil.wait_procs(leftovers, timeout=STOP_LIMIT_S)
    for process in stubborn:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(stubborn, timeout=STOP_LIMIT_S)
    return len(leftovers)


def _belongs_to(process: psutil.Process, state: StateFolder) -> bool:
    try:
        return bool(process.pid != os.getpid() and process.environ().get(MARK) == str(state.path))
    except (psutil.Error, OSError):  # not ours to look into, or gone
        return False


def _configuration(stack: Stack) -> str:
    state = stack.state
    # supervisord compares the SHA-1 of what it is given: the file need not hold the password itself.
    digest = hashlib.sha1(stack.secrets.supervisor_password.encode()).hexdigest()
    lines = [
        "[supervisord]",
        f"logfile={_escaped(state.logs / 'supervisord.log')}",
        "logfile_maxbytes=5MB",
        f"pidfile={_escaped(state.run / 'supervisord.pid')}",
        f"childlogdir={_escaped(state.logs)}",
        *(["user=root"] if os.geteuid() == 0 else []),  # says that running as root is meant
        "[inet_http_server]",
        f"port=127.0.0.1:{stack.launch.ports['supervisor']}",
        "username=osprey",
        f"password={{SHA}}{digest}",
        "[rpcinterface:supervisor]",
        "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface",
    ]
    for component in COMPONENTS:
        command = shlex.join([sys.executable, "-m", "stack.run", str(state.path), component.name])
        lines += [
            f"[program:{component.name}]",
            f"command={_escaped(command)}",
            f"directory={_escaped(CHECKOUT)}",
            "autostart=false",
            "autorestart=true",
            "startsecs=2",
            # Each try waits a second longer: whatever is wrong, it recovers when it is put right.
            "startretries=1000000",
            f"stopwaitsecs={STOP_LIMIT_S:.0f}",
            "stopasgroup=true",
            "killasgroup=true",
            "redirect_stderr=true",
            # supervisord expands this one twice.
            f"stdout_logfile={_escaped(_escaped(state.logs / (component.name + '.log')))}",
            "stdout_logfile_maxbytes=10MB",
            "stdout_logfile_backups=2",
        ]
    return "\n".join(lines) + "\n"


def _escaped(value: object) -> str:
    return str(value).replace("%", "%%")
