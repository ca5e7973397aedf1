"""The documentation against the code: the links, commands, options, settings and pictures that it names are there."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from cli.main import app
from job_queue.settings import OTHER_VARIABLES, PREFIX
from tests.support.settings_page import TABLES, with_tables

ROOT = Path(__file__).resolve().parents[1]
ROOMS = (
    "label_config", "osprey_model", "job_queue", "registry", "backend", "worker", "learning", "cli", "demo", "stack",
    "bench",
)  # fmt: skip
PAGES = sorted(
    str(path.relative_to(ROOT))
    for path in (*ROOT.glob("*.md"), ROOT / "bench" / "README.md", *(ROOT / "docs").rglob("*.md"))
)
HISTORY = ("CHANGELOG.md", "docs/develop/decisions/")  # what was there once may be named
CURRENT = [page for page in PAGES if not page.startswith(HISTORY)]

OTHERS_MODULES = ("pytest", "venv", "pip")  # that `python -m` runs, and that are not ours
MOST_WORDS = 700
LARGEST_PICTURE_BYTES = 2_000_000

_FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
_SETTING = re.compile(r"OSPREY_[A-Z0-9_]+")


def text_of(page: str) -> str:
    """A page's Markdown."""
    return (ROOT / page).read_text(encoding="utf-8")


def prose_of(page: str) -> str:
    """A page without code blocks."""
    return _FENCE.sub("", text_of(page))


def code_of(page: str) -> list[str]:
    """Everything in code style that may be a command: inline, and the lines of shell blocks without comments."""
    lines = re.findall(r"`([^`\n]+)`", prose_of(page))
    for _, language, block in _FENCE.findall(text_of(page)):
        if language in ("sh", "bash", "console"):
            joined = block.replace("\\\n", " ")
            lines += [line for full in joined.splitlines() if (line := re.sub(r"(^|\s)#.*", "", full).strip())]
    return lines


# Links and pictures


def links_of(page: str) -> list[tuple[str, str]]:
    """The relative links of a page: path ("" for the page itself) and anchor."""
    links = re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", re.sub(r"`[^`\n]+`", "", prose_of(page)))
    return [(path, anchor) for path, anchor in links if "://" not in path and not path.startswith("mailto:")]


@cache
def anchors_of(file: Path) -> frozenset[str]:
    """The anchors of a Markdown file's headings, as GitHub and MkDocs make them."""
    headings = re.findall(r"^#+ +(.+?) *#*$", _FENCE.sub("", file.read_text(encoding="utf-8")), re.MULTILINE)
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in headings)
    slugs = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in plain]
    counts: Counter[str] = Counter()
    anchors = set()
    for slug in slugs:
        anchors.add(f"{slug}-{counts[slug]}" if counts[slug] else slug)
        counts[slug] += 1
    return frozenset(anchors)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings(page: str) -> None:
    """Every relative link of a page, kept results among them."""
    here = ROOT / page
    broken = []
    for path, anchor in links_of(page):
        file = (here.parent / path).resolve() if path else here
        is_missing = not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors_of(file))
        if is_missing:
            broken.append(f"{path}#{anchor}" if anchor else path)
    assert not broken, f"{page} links to what is not there: {broken}"


@pytest.mark.parametrize("page", PAGES)
def test_pictures_are_small(page: str) -> None:
    """A picture that a page shows has less than 2 MB."""
    pictures = [ROOT / page / ".." / path for path in re.findall(r"!\[[^\]]*\]\(([^)\s]+)\)", prose_of(page))]
    large = [str(path) for path in map(Path.resolve, pictures) if path.stat().st_size >= LARGEST_PICTURE_BYTES]
    assert not large


def test_readme_is_short() -> None:
    """Outside code blocks; what is longer belongs in docs/."""
    assert len(prose_of("README.md").split()) < MOST_WORDS


def test_map_of_the_readme_lists_the_rooms() -> None:
    """One line per top-level folder of code."""
    folders = re.findall(r"^([a-z_]+)/ +", text_of("README.md"), re.MULTILINE)
    assert sorted(folders) == sorted(ROOMS)
    assert [name for name in folders if not (ROOT / name).is_dir()] == []


def test_files_named_in_the_readme_exist() -> None:
    """Paths in code style."""
    files = re.findall(r"`([a-z_]+/[a-z_./-]+|\.env\.example|[A-Z]+\.md)`", text_of("README.md"))
    assert [name for name in files if not (ROOT / name).exists()] == []


def test_website_shows_every_page() -> None:
    """The navigation in mkdocs.yml is complete, and names nothing else."""
    named = re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    pages = [page.removeprefix("docs/") for page in PAGES if page.startswith("docs/")]
    assert sorted(named) == sorted(pages)


# Commands


@cache
def make_targets() -> frozenset[str]:
    """Targets that `make help` lists."""
    lines = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return frozenset(match.group(1) for line in lines if (match := re.match(r"\s+make ([a-z-]+)\s", line)))


def osprey_calls(line: str) -> Iterator[list[str]]:
    """The words behind each `osprey` of a line of code."""
    patterns = (
        r"(?:^|[\s/(\"'])osprey ([a-z][^|;&\"]*)",
        r"make osprey ARGS=\"([^\"]*)\"",
        r"-m cli\.main ([a-z][^|;&]*)",
    )
    for pattern in patterns:
        for words in re.findall(pattern, line):
            yield words.split()


def problem_of_osprey(words: list[str]) -> str | None:
    """What is wrong with the command, its sub-command or an option; None where all exist."""
    command: Any = get_command(app)
    while words and getattr(command, "commands", None) and not words[0].startswith("-"):
        name, *words = words
        if name not in command.commands:
            return f"no command {name!r}"
        command = command.commands[name]
    known = {"--help"} | {option for each in command.params for option in (*each.opts, *each.secondary_opts)}
    unknown = [option for word in words if (option := word.partition("=")[0]).startswith("--") and option not in known]
    return f"{command.name} has no {', '.join(unknown)}" if unknown else None


def module_calls(line: str) -> Iterator[tuple[str, list[str]]]:
    """Module and words behind each `python -m` of a line of code."""
    for module, words in re.findall(r"python3? -m ([A-Za-z_][\w.]*)([^|;&]*)", line):
        yield module, words.split()
    for words in re.findall(r"make loop-demo ARGS=\"([^\"]*)\"", line):
        yield "bench.loop", words.split()


def problem_of_module(module: str, words: list[str]) -> str | None:
    """What is wrong with a module or its options; None where all exist."""
    if module == "pytest":
        missing = [word for word in words if word.startswith("tests/") and not (ROOT / word).exists()]
        return f"{missing} do not exist" if missing else None
    if module.split(".")[0] not in ROOMS:
        return None if module in OTHERS_MODULES else f"{module} is no module of ours"
    path = ROOT / module.replace(".", "/")
    file = next((file for file in (path.with_suffix(".py"), path / "__main__.py") if file.is_file()), None)
    if file is None:
        return f"{module} cannot be run"
    source = file.read_text(encoding="utf-8")
    options = [word.partition("=")[0] for word in words if word.startswith("--")]
    unknown = [
        option
        for option in options
        # argparse names the option itself, typer a parameter
        if f'"{option}"' not in source and not re.search(rf"\b{option[2:].replace('-', '_')}:", source)
    ]
    return f"{module} has no {', '.join(unknown)}" if unknown else None


@pytest.mark.parametrize("page", CURRENT)
def test_make_targets_exist(page: str) -> None:
    """`make x` in code style is a target of `make help`."""
    named = {name for line in code_of(page) for name in re.findall(r"(?<![\w-])make ([a-z][a-z-]*)", line)}
    assert named <= make_targets(), f"{page} names targets that the Makefile does not have: {named - make_targets()}"


@pytest.mark.parametrize("page", CURRENT)
def test_osprey_commands_exist(page: str) -> None:
    """`osprey x y --option` in code style is a command with that option."""
    calls = [words for line in code_of(page) for words in osprey_calls(line)]
    problems = {" ".join(words): problem for words in calls if (problem := problem_of_osprey(words))}
    assert not problems, f"{page} names commands that `osprey` does not have: {problems}"


@pytest.mark.parametrize("page", CURRENT)
def test_modules_can_be_run(page: str) -> None:
    """`python -m x --option` in code style is a module with that option."""
    calls = [call for line in code_of(page) for call in module_calls(line)]
    problems = {module: problem for module, words in calls if (problem := problem_of_module(module, words))}
    assert not problems, f"{page} names modules that cannot be run so: {problems}"


def test_commands_are_found_at_all() -> None:
    """The checks above see the commands of the README."""
    code = code_of("README.md")
    assert [words for line in code for words in osprey_calls(line)]
    assert any("make up" in line for line in code)
    assert [call for line in code_of("bench/README.md") for call in module_calls(line)]


@pytest.mark.parametrize(
    "line",
    [
        "osprey dance",
        "osprey models dance",
        ".venv/bin/osprey export --project 1 --dance",
        'make osprey ARGS="collect --dance"',
        "accelerate launch -m cli.main train --dance",
    ],
)
def test_wrong_osprey_commands_are_seen(line: str) -> None:
    """Sub-commands of groups and options are looked at, too."""
    assert [problem for words in osprey_calls(line) if (problem := problem_of_osprey(words))]


# Settings

SETTINGS = {name for each in TABLES.values() for name in each.variables()}
OTHERS = {f"{PREFIX}{name}" for name in OTHER_VARIABLES}


def test_page_of_settings_is_what_the_classes_say() -> None:
    """`make docs-settings` would change nothing; each variable has one row."""
    page = text_of("docs/settings.md")
    assert page == with_tables(page), "run `make docs-settings`"
    assert sorted(re.findall(r"^\| `(\w+)`", page, re.MULTILINE)) == sorted(SETTINGS)


def test_the_page_follows_the_classes() -> None:
    """A row that was changed, or is missing, is written again; a page without a heading is refused."""
    page = text_of("docs/settings.md")
    assert with_tables(page.replace("`OSPREY_REDIS_URL`", "`OSPREY_REDIS`")) == page
    assert with_tables(re.sub(r"(?m)^\| `OSPREY_DEVICE`.*\n", "", page)) == page
    with pytest.raises(AssertionError, match="Fine-tunes"):
        with_tables(page.replace("## Fine-tunes", "## Tunes"))


@pytest.mark.parametrize("room", ROOMS)
def test_every_variable_is_declared(room: str) -> None:
    """A variable that a room's code names is one of a settings class, or one of those that are not settings."""
    named = {
        name
        for file in (ROOT / room).rglob("*.py")
        for name in re.findall(r"\"(OSPREY_[A-Z0-9_]*[A-Z0-9])\"", file.read_text(encoding="utf-8"))
    }
    assert named <= SETTINGS | OTHERS, f"declare in a settings class: {sorted(named - SETTINGS - OTHERS)}"


@pytest.mark.parametrize("page", [*CURRENT, ".env.example", "docker-compose.yml", "Makefile"])
def test_variables_that_a_page_names_are_known(page: str) -> None:
    """Each is one of a settings class, the beginning of some (`OSPREY_FINETUNE_*`), or known to be no setting."""
    text = text_of(page)
    beginnings = set(re.findall(r"(OSPREY_[A-Z0-9_]+_)\*", text))
    assert {each for each in beginnings if not any(name.startswith(each) for name in SETTINGS)} == set()
    unknown = set(_SETTING.findall(text.replace("_*", "_"))) - SETTINGS - OTHERS - beginnings
    assert not unknown, f"{page} names variables that nothing reads: {sorted(unknown)}"


def test_other_variables_are_read_somewhere() -> None:
    """A name that is known without being a setting is in the code, the tests or docker-compose.yml."""
    files = [file for folder in (*ROOMS, "tests") for file in (ROOT / folder).rglob("*.py")]
    text = "\n".join(file.read_text(encoding="utf-8") for file in (*files, ROOT / "docker-compose.yml"))
    assert {name for name in OTHERS - SETTINGS if name not in text} == set()
