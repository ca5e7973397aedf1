"""How every process reads its settings, and those that backend and workers share.

A setting is one line of a class: `name: Type = setting(default, "meaning")`. Its variable is `OSPREY_` and the name in
upper case. The tables of `docs/settings.md`, what `make up` passes on and what counts as a misspelled variable all come
from these lines.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, ValidationError, WrapValidator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

from job_queue.task_arms import BLIND_SHARE, RANDOM_SHARE, Shares

PREFIX = "OSPREY_"
# Old name -> new name. The old variable works for one release, with a warning.
RENAMED: dict[str, str] = {}
# What else has the prefix: for `make up`, in docker-compose.yml and for the tests.
OTHER_VARIABLES = (
    "LABEL_STUDIO_PORT", "REDIS_PORT", "STATE_DIR", "LABEL_STUDIO_EXECUTABLE", "STACK_MARK", "STACK_RUN",
    "STACK_CHECKOUT", "LABEL_STUDIO_USERNAME", "LABEL_STUDIO_PASSWORD", "LABEL_STUDIO_BIND", "LABEL_STUDIO_PUBLIC_URL",
    "CHECKPOINTS", "BACKEND_URL", "GOLDEN_DIR", "COMPOSE", "CHROMIUM", "SCREENSHOTS", "TEST_POSTGRES_URL",
    "E2E_STATE_DIR",
)  # fmt: skip


def expect(what: str, read: Callable[[str], Any]) -> WrapValidator:
    """Read a value from a variable's text; refuse a wrong one with the words `must be {what}`."""

    def check(value: Any, accept: Callable[[Any], Any]) -> Any:
        try:
            return accept(read(value) if isinstance(value, str) else value)
        except ValueError as error:
            raise ValueError(f"must be {what}, got {value!r}") from error

    return WrapValidator(check)


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


Count = Annotated[int, Field(strict=True, ge=0), expect("a whole number, zero or more", int)]
PositiveWhole = Annotated[int, Field(strict=True, gt=0), expect("a whole number above zero", int)]
Positive = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False), expect("a number above zero", float)]
NotNegative = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False), expect("a number, zero or more", float)]
Share = Annotated[float, Field(strict=True, ge=0, le=1), expect("a number from 0 to 1", float)]
Fraction = Annotated[float, Field(strict=True, ge=0, lt=1), expect("a number from 0 to below 1", float)]
Switch = Annotated[bool, Field(strict=True), expect("on or off", lambda text: ("off", "on").index(text.lower()) == 1)]
UserPath = Annotated[Path, AfterValidator(Path.expanduser)]
Names = Annotated[tuple[str, ...], expect("names with commas between them", _parts)]
ProjectNumbers = Annotated[
    tuple[Annotated[int, Field(ge=0)], ...], expect("project numbers with commas between them", _parts)
]


def setting(
    default: Any, meaning: str, *, variable: str | None = None, shown: str | None = None, make_up: bool = True,
    compose: bool = False, secret: bool = False,
) -> Any:  # fmt: skip
    """Declare a setting: its default, and one sentence for docs/settings.md.

    Args:
        default: counts where the variable is missing or empty.
        meaning: the sentence.
        variable: the name, where it does not follow from the field's.
        shown: the default in docs/settings.md, where the value would say too little.
        make_up: whether `make up` passes the variable on to its processes.
        compose: whether docker-compose.yml does.
        secret: leave the value out of `repr`.
    """
    about: Any = {"shown": shown, "make_up": make_up, "compose": compose}
    return Field(default, description=meaning, validation_alias=variable, repr=not secret, json_schema_extra=about)


class OspreySettings(BaseSettings):
    """Frozen settings that are read from a mapping of variables; the constructor takes values and reads nothing."""

    model_config = SettingsConfigDict(
        alias_generator=lambda name: PREFIX + name.upper(), populate_by_name=True, frozen=True, enable_decoding=False
    )

    @classmethod
    def settings_customise_sources(cls, settings_cls: Any, init_settings: Any, *_: Any, **__: Any) -> Any:  # noqa: ARG003
        """Take nothing from the process environment."""
        return (init_settings,)

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Self:
        """Read the variables; a missing or empty one keeps its default.

        Raises:
            ValueError: a value that cannot be used; the message names the variable and what it should be.
        """
        source = EnvSettingsSource(cls)
        source.env_vars = {name.lower(): text for name, text in given_variables(environ).items()}
        return cls.checked(source())

    @classmethod
    def checked(cls, values: Mapping[str, Any], where: str = "") -> Self:
        """Make settings of values that a person gave, by field or variable.

        Raises:
            ValueError: the first value that cannot be used, in one line that begins with `where`.
        """
        try:
            return cls(**values)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise ValueError(f"{where}{first['loc'][0]} {first['msg'].removeprefix('Value error, ')}") from error

    @classmethod
    def variables(cls, passed_on_by: str | None = None) -> dict[str, FieldInfo]:
        """Return the fields by variable; `make_up` or `compose`: only those that this one passes on."""
        fields = {str(field.validation_alias): field for field in cls.model_fields.values()}
        about: dict[str, Any] = {name: field.json_schema_extra for name, field in fields.items()}
        return {name: fields[name] for name in fields if passed_on_by is None or about[name][passed_on_by]}


class ProcessSettings(OspreySettings):
    """What backend and workers must agree on."""

    redis_url: str = setting("redis://127.0.0.1:6379/0", "the queue, with its password", make_up=False, secret=True)
    log_level: Annotated[str, AfterValidator(str.upper)] = setting("INFO", "`DEBUG`, `INFO` or `WARNING`", compose=True)
    blind_share: Share = setting(BLIND_SHARE, "share of tasks shown without suggested texts; 0: none", compose=True)
    random_share: Share = setting(
        RANDOM_SHARE, "share of tasks with a random position in the uncertainty order", compose=True
    )

    @property
    def shares(self) -> Shares:
        """Which tasks are blind, and which are in the random arm."""
        return Shares(self.blind_share, self.random_share)


@dataclass(frozen=True, slots=True)
class QueueSettings:
    """Bounds and lifetimes of jobs. Times in seconds. They have no variables: both sides must use the same ones."""

    segment_timeout_s: int = 120  # a large SAM on a CPU embeds for a minute; the next click finds it embedded
    describe_timeout_s: int = 300  # all fields of a few regions on a slow CPU
    background_timeout_s: int = 600  # warm-up and bulk jobs
    interactive_bound: int = 32  # waiting jobs per queue before a click is answered "busy"
    train_timeout_s: int = 7 * 86_400  # a fine-tune of a 7B model, and the gate
    background_bound: int = 2000
    data_bound: int = 10_000  # hints; what does not fit is found by the next reconcile
    data_timeout_s: int = 6 * 3600  # the first look at a large project
    queued_ttl_s: int = 300  # a click that no worker took by then is forgotten
    background_queued_ttl_s: int = 86_400
    result_ttl_s: int = 3600  # late answers travel with a later request
    failure_ttl_s: int = 3600
    max_retries: int = 1  # a job whose worker died runs once more
    heartbeat_ttl_s: float = 10.0
    redis_timeout_s: float = 0.9  # a Redis that hangs is noticed within a second


def given_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the `OSPREY_*` variables that have a value, under their present names, without surrounding blanks."""
    values = {name: text.strip() for name, text in environ.items() if name.startswith(PREFIX) and text.strip()}
    return {RENAMED[name]: text for name, text in values.items() if name in RENAMED} | values


def name_warnings(environ: Mapping[str, str], classes: Iterable[type[OspreySettings]]) -> Iterator[str]:
    """Yield one line for each `OSPREY_*` variable that is renamed or that nothing reads, with the nearest name."""
    known = {name for each in classes for name in each.variables()} | {PREFIX + name for name in OTHER_VARIABLES}
    ends = sorted(name.removeprefix(PREFIX) for name in known)  # the prefix makes all names alike
    for name in sorted(name for name in environ if name.startswith(PREFIX) and name not in known):
        if name in RENAMED:
            yield f"{name} is now called {RENAMED[name]}; the old name works until the next release"
        else:
            nearest = difflib.get_close_matches(name.removeprefix(PREFIX), ends, n=1)
            advice = f"; did you mean {PREFIX}{nearest[0]}?" if nearest else ""
            yield f"{name} is not a setting and has no effect{advice}"
