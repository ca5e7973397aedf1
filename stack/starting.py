"""Start components and wait until they work. A component that ends is reported at once, with the end of its log."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from stack.components import Component, LastingProblem, Stack
from stack.settings import StackError
from stack.supervisor import ProcessState, Supervisor

LOG_LINES = 15
_LASTING_S = 15.0  # longer than the ten seconds after which a worker tries again to load its model
_CHECK_EVERY_S = 0.25


@dataclass(frozen=True)
class _Started:
    component: Component
    process: ProcessState
    log: Path
    log_bytes: int  # the length of the log before this start

    def log_end(self) -> str:
        """Return the last lines that the component has written since this start."""
        if not self.log.exists():
            return f"\n{self.log} does not exist"
        with self.log.open("rb") as file:
            # A shorter log than before was rotated, so all of it is new.
            file.seek(self.log_bytes if self.log.stat().st_size >= self.log_bytes else 0)
            lines = file.read().decode(errors="replace").splitlines()[-LOG_LINES:]
        return f"\nThe end of {self.log}:\n" + ("\n".join(lines) or "(nothing since this start)")


class Starter:
    """Starts components of one stack, and checks all of them while it waits for one."""

    def __init__(self, stack: Stack, supervisor: Supervisor) -> None:
        self._stack, self._supervisor = stack, supervisor
        self._started: dict[str, _Started] = {}

    def with_stack(self, stack: Stack) -> Starter:
        """Return a starter for the same stack with other secrets, which knows the components started so far."""
        other = Starter(stack, Supervisor(stack))
        other._started = self._started
        return other

    def start(self, component: Component) -> None:
        """Start a component, unless it runs with the present settings."""
        log = self._stack.state.logs / f"{component.name}.log"
        log_bytes = log.stat().st_size if log.exists() else 0
        self._supervisor.start_component(component.name)
        process = self._supervisor.process_state(component.name)
        before = self._started.get(component.name)
        if before is None or before.process.pid != process.pid:
            self._started[component.name] = _Started(component, process, log, log_bytes)

    def wait(self, component: Component, on_state: Callable[[str], None]) -> None:
        """Wait until the component works.

        Args:
            component: a component that was started here.
            on_state: called with the state of its process in the supervisor's terms, such as "running".

        Raises:
            StackError: this component or another one started here has ended, or this one does not work within its time
                limit.
        """
        started, began = self._started[component.name], time.monotonic()
        lasting_since = began  # since when the component reports a `LastingProblem` without interruption
        while (problem := component.problem(self._stack)) is not None:
            now = self._check_all()[component.name]
            on_state(now.name.lower())
            if not isinstance(problem, LastingProblem):
                lasting_since = time.monotonic()
            if time.monotonic() > lasting_since + _LASTING_S:
                raise StackError(f"{component.title} does not work: {problem}{started.log_end()}")
            if time.monotonic() > began + component.start_limit_s:
                raise StackError(
                    f"{component.title} does not work after {component.start_limit_s:.0f} s "
                    f"(process {now.name}): {problem}{started.log_end()}"
                )
            time.sleep(_CHECK_EVERY_S)

    def _check_all(self) -> dict[str, ProcessState]:
        """Return the present state of every component that was started here.

        Raises:
            StackError: a process has ended, even if the supervisor has restarted it since.
        """
        states = {name: self._supervisor.process_state(name) for name in self._started}
        for name, started in self._started.items():
            now, first = states[name], started.process
            if now.has_ended or (now.pid, now.started_at) != (first.pid, first.started_at):
                how = f" ({now.ended})" if now.ended else ""
                raise StackError(f"{started.component.title} ended while it started{how}{started.log_end()}")
        return states
