"""Start components and wait until they work; one that ends meanwhile is told at once, with the end of its log."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from stack.components import Component, LastingProblem, Stack
from stack.settings import StackError
from stack.supervisor import ProcessState, Supervisor

LOG_LINES = 15
_LASTING_S = 15.0  # a worker tries again to load its model every ten
_LOOK_EVERY_S = 0.25


@dataclass(frozen=True)
class _Started:
    component: Component
    process: ProcessState
    log: Path
    log_bytes: int  # what was in the log before

    def log_end(self) -> str:
        """What it has written since, the last lines of it."""
        if not self.log.exists():
            return f"\n{self.log} is not there"
        with self.log.open("rb") as file:
            file.seek(self.log_bytes if self.log.stat().st_size >= self.log_bytes else 0)  # it may have been rotated
            lines = file.read().decode(errors="replace").splitlines()[-LOG_LINES:]
        return f"\nThe end of {self.log}:\n" + ("\n".join(lines) or "(nothing since this start)")


class Starter:
    """Starts components of one stack and watches all of them while it waits for one."""

    def __init__(self, stack: Stack, supervisor: Supervisor) -> None:
        self._stack, self._supervisor = stack, supervisor
        self._started: dict[str, _Started] = {}

    def with_stack(self, stack: Stack) -> Starter:
        """The same with other secrets."""
        other = Starter(stack, Supervisor(stack))
        other._started = self._started
        return other

    def start(self, component: Component) -> None:
        """Start a component, or leave it alone where it runs with the present settings."""
        log = self._stack.state.logs / f"{component.name}.log"
        log_bytes = log.stat().st_size if log.exists() else 0
        self._supervisor.start_component(component.name)
        process = self._supervisor.process_state(component.name)
        before = self._started.get(component.name)
        if before is None or before.process.pid != process.pid:
            self._started[component.name] = _Started(component, process, log, log_bytes)

    def wait(self, component: Component, on_state: Callable[[str], None]) -> None:
        """Return when the component works.

        Args:
            component: was started.
            on_state: called with the supervisor's word for its state.

        Raises:
            StackError: this one, or another that was started, has ended; or it does not work in its time.
        """
        started, began = self._started[component.name], time.monotonic()
        lasting_since = began
        while (problem := component.problem(self._stack)) is not None:
            now = self._look_after_all()[component.name]
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
            time.sleep(_LOOK_EVERY_S)

    def _look_after_all(self) -> dict[str, ProcessState]:
        """The present state of everything that was started.

        Raises:
            StackError: a process has ended since, even if the supervisor has started another one for it.
        """
        states = {name: self._supervisor.process_state(name) for name in self._started}
        for name, started in self._started.items():
            now, first = states[name], started.process
            if now.has_ended or (now.pid, now.started_at) != (first.pid, first.started_at):
                how = f" ({now.ended})" if now.ended else ""
                raise StackError(f"{started.component.title} ended while it started{how}{started.log_end()}")
        return states
