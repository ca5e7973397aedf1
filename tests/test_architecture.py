"""Who may import whom, and what no module may do. Read from the source, so that nothing has to be installed."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# What a room may import of ours, besides itself; rooms stand in this order, each on those before it.
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "label_config": (),
    "osprey_model": (),
    "job_queue": ("label_config",),
    "registry": ("job_queue",),
    "backend": ("job_queue", "label_config"),
    "worker": ("registry", "job_queue", "label_config", "osprey_model"),
    "learning": ("worker", "registry", "job_queue", "label_config", "osprey_model"),
    "cli": ("label_config", "osprey_model", "job_queue", "registry", "backend", "worker", "learning"),
    "demo": ("label_config", "osprey_model", "job_queue", "registry", "worker", "learning"),
    "stack": (
        "demo", "worker", "registry", "job_queue", "label_config",
        "backend.settings", "learning.settings", "learning.training.options",
    ),
    "bench": (
        "label_config", "osprey_model", "job_queue", "registry", "backend", "worker", "learning", "demo", "stack",
    ),
}  # fmt: skip
ROOMS = tuple(MAY_IMPORT)

# The order of parts inside a room, low to high: a part imports only parts on lower levels. A part is a file or folder.
LEVELS: dict[str, tuple[tuple[str, ...], ...]] = {
    "osprey_model": (
        ("config", "byte_lru"), ("inputs", "modeling"), ("data", "weights", "hf"), ("engine", "training"),
        ("auto", "evaluation"),
    ),
    "backend": (
        ("settings", "ports"), ("click", "served_version", "auth"), ("predict",), ("ml_backend", "webhook"), ("app",),
        ("main",),
    ),
    "worker": (
        ("settings", "processor", "guarded_http", "sam", "current_runtime"), ("label_studio", "model_protocols"),
        ("images", "osprey_describer"), ("load_version", "shared_embedding"), ("runtime",), ("describing", "prelabel"),
        ("jobs", "queue_worker"), ("main",),
    ),
    "learning": (
        ("settings",), ("submitted", "schedule"), ("corrections", "export"), ("gate",),
        ("training", "report", "generation"), ("runtime",), ("jobs", "main"),
    ),
    "bench": (("service",), ("harness", "quality"), ("speed", "loop"), ("faults", "gpu_check")),
    "demo": (("scenes", "small_models"), ("truth", "training")),
}  # fmt: skip

MODEL_LIBRARIES = ("torch", "torchvision", "transformers", "open_clip", "timm", "segment_anything", "safetensors")
SERVICE_LIBRARIES = ("redis", "rq", "starlette", "uvicorn", "httpx", "httpcore", "label_studio_ml", "label_studio_sdk")
MAY_NOT_IMPORT = {
    "label_config": (*MODEL_LIBRARIES, *SERVICE_LIBRARIES),
    "job_queue": MODEL_LIBRARIES,
    "backend": MODEL_LIBRARIES,
    "osprey_model": SERVICE_LIBRARIES,
}
# Libraries that one place alone may import, so that replacing them means editing that place.
ONLY_IN = {
    "label_studio_ml": ("backend/ml_backend.py",),
    "segment_anything": (
        "worker/sam/segmenter.py", "worker/sam/device.py", "worker/sam/presets.py", "demo/training/sam/",
        "bench/speed/sam.py",
    ),
}  # fmt: skip
# They name files of earlier releases, or names that no file may have.
MAY_NAME_MISSING_PATHS = {"CHANGELOG.md", "docs/develop/style.md", "tests/test_architecture.py"}
FORBIDDEN_NAMES = {"utils.py", "helpers.py", "common.py", "misc.py"}
ENTRY_NAMES = {"main.py", "__main__.py"}
PASSES_ENVIRONMENT_ON = {"bench/quality/evaluate.py"}  # to the processes it starts; reads nothing for itself
MOST_FILES_IN_A_FOLDER = 14
LARGEST_ROOM_SHARE = 0.22
FILE_NAMES_MAY_REPEAT = {"__init__.py", "__main__.py", "settings.py", "auto.py"}


@cache
def sources() -> tuple[str, ...]:
    """Every Python file of the rooms, as a path relative to the checkout."""
    return tuple(sorted(str(path.relative_to(ROOT)) for room in ROOMS for path in (ROOT / room).rglob("*.py")))


@cache
def tree_of(path: str) -> ast.Module:
    """The parsed file."""
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


def imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every imported module with its line; `from a import b` counts as `a.b`, which may be a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield "." * node.level, node.lineno
            else:
                yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def is_below(module: str, allowed: tuple[str, ...]) -> bool:
    """Whether `module` is one of `allowed` or lies below it."""
    return any(module == name or module.startswith(name + ".") for name in allowed)


def level_of(room: str, part: str) -> int:
    """The level of a part inside its room.

    Raises:
        KeyError: the part has no place yet; give it one in `LEVELS`.
    """
    for level, parts in enumerate(LEVELS[room]):
        if part in parts:
            return level
    raise KeyError(f"{room}/{part} has no level in LEVELS of tests/test_architecture.py")


def part_of(path: str) -> str | None:
    """The file or folder of a room in which a file lies; None for the room's own `__init__.py`."""
    part = path.split("/")[1].removesuffix(".py")
    return None if part == "__init__" else part


def import_violations(path: str, source: str) -> list[str]:
    """What a file imports against the rules."""
    room, found = path.split("/")[0], []
    for module, line in imports(ast.parse(source)):
        top = module.split(".")[0]
        where = f"{path}:{line} imports {module}"
        if not top:
            found.append(f"{where}: relative imports hide which room is meant")
        elif top in ROOMS and not is_below(module, (room, *MAY_IMPORT[room])):
            found.append(f"{where}: {room} may import only {', '.join(MAY_IMPORT[room])} of ours")
        elif top == room and room in LEVELS and (found_upward := upward(path, module)):
            found.append(f"{where}: {found_upward}")
        elif top in MAY_NOT_IMPORT.get(room, ()):
            found.append(f"{where}: {room} does without {top}")
        elif top in ONLY_IN and not path.startswith(ONLY_IN[top]):
            found.append(f"{where}: only {', '.join(ONLY_IN[top])} may import {top}")
    return found


def upward(path: str, module: str) -> str | None:
    """Why a file may not import a module of its own room, or None."""
    room, names = path.split("/")[0], module.split(".")
    mine, other = part_of(path), names[1] if len(names) > 1 else None
    if mine is None or other is None or mine == other or not (ROOT / room / other).exists() | (
        ROOT / room / f"{other}.py"
    ).exists():
        return None
    if level_of(room, other) < level_of(room, mine):
        return None
    return f"{room}/{other} is not on a lower level than {room}/{mine}"


def environment_violations(path: str, source: str) -> list[str]:
    """Reads of the process environment outside an entry: a command, a `main` file or a file with a `__main__` block."""
    tree = ast.parse(source)
    is_script = any(isinstance(node, ast.If) and "__name__" in ast.unparse(node.test) for node in tree.body)
    if is_script or path.startswith("cli/") or Path(path).name in ENTRY_NAMES or path in PASSES_ENVIRONMENT_ON:
        return []
    found: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("os.environ", "os.environb", "os.getenv"):
            found.append(f"{path}:{node.lineno} reads the environment; take a Settings or a mapping instead")
        if isinstance(node, ast.ImportFrom) and node.module == "os":
            names = {alias.name for alias in node.names} & {"environ", "environb", "getenv"}
            found.extend(f"{path}:{node.lineno} imports {name}; take a Settings or a mapping instead" for name in names)
    return found


def eager_violations(path: str, source: str) -> list[str]:
    """Imports of our rooms at the top of a `cli` file: each command imports what it needs when it runs."""
    if not path.startswith("cli/"):
        return []
    top_level = [node for node in ast.parse(source).body if isinstance(node, (ast.Import, ast.ImportFrom))]
    return [
        f"{path}:{line} imports {module} for every command; import it inside the command"
        for module, line in imports(ast.Module(body=top_level, type_ignores=[]))
        if module.split(".")[0] in ROOMS and not module.startswith("cli")
    ]


def violations(path: str, source: str) -> list[str]:
    """Every broken rule of a file."""
    return [
        *import_violations(path, source),
        *environment_violations(path, source),
        *eager_violations(path, source),
    ]


@pytest.mark.parametrize("room", ROOMS)
def test_room_keeps_the_rules(room):
    """Imports go only the allowed ways, the environment is read only at entries, commands import lazily."""
    paths = [path for path in sources() if path.startswith(room + "/")]
    assert paths
    assert [found for path in paths for found in violations(path, (ROOT / path).read_text(encoding="utf-8"))] == []


def test_rooms_stand_on_earlier_rooms():
    """A room imports only rooms that stand before it, so there is no circle of rooms."""
    for position, (room, allowed) in enumerate(MAY_IMPORT.items()):
        assert {name.split(".")[0] for name in allowed} <= set(ROOMS[:position]), room


@pytest.mark.parametrize("room", LEVELS)
def test_every_part_has_a_level(room):
    """Every file and folder of a room with an order of parts has its place in that order."""
    parts = {part_of(path) for path in sources() if path.startswith(room + "/")} - {None}
    assert parts <= {part for level in LEVELS[room] for part in level}


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("backend/app.py", "import torch"),
        ("backend/app.py", "from worker import jobs"),
        ("backend/app.py", "def f():\n    from worker.jobs import segment"),
        ("backend/app.py", "import osprey_model.config"),
        ("backend/app.py", "from label_studio_ml.model import LabelStudioMLBase"),
        ("backend/app.py", "from cli import main"),
        ("backend/auth.py", "from backend.app import build_app"),
        ("label_config/reader.py", "import httpx"),
        ("label_config/reader.py", "from job_queue.contracts import Rle"),
        ("osprey_model/config.py", "from worker import queue_worker"),
        ("osprey_model/config.py", "import redis"),
        ("osprey_model/inputs/images.py", "from osprey_model.engine.engine import Osprey"),
        ("osprey_model/inputs/images.py", "from osprey_model.modeling.osprey import OspreyForCausalLM"),
        ("worker/jobs.py", "from backend import settings"),
        ("worker/jobs.py", "import demo.scenes"),
        ("worker/jobs.py", "import learning.jobs"),
        ("worker/jobs.py", "from segment_anything import SamPredictor"),
        ("worker/jobs.py", "from .queue import JobQueue"),
        ("worker/sam/masks.py", "from worker.runtime import ModelRuntime"),
        ("stack/up.py", "from backend import app"),
        ("demo/truth/sets.py", "import stack.settings"),
        ("worker/images/resolver.py", "import os\nURL = os.environ['X']"),
        ("worker/images/resolver.py", "import os\ndef url():\n    return os.getenv('X')"),
        ("worker/images/resolver.py", "from os import environ"),
        ("cli/worker.py", "from worker.main import main"),
    ],
)
def test_broken_rule_is_found(path, source):
    """The checks above can fail: each of these lines is found."""
    assert len(violations(path, source)) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("backend/app.py", "from job_queue.queue import JobQueue\nfrom label_config.reader import read_label_config"),
        ("backend/ml_backend.py", "from label_studio_ml.model import LabelStudioMLBase"),
        ("backend/main.py", "import os\nprint(os.environ)"),
        ("osprey_model/engine/engine.py", "from osprey_model.inputs.images import as_image"),
        ("stack/compose_init.py", "import os\nif __name__ == '__main__':\n    print(os.environ)"),
        ("cli/worker.py", "def worker():\n    from worker.main import main\n    import os\n    main(os.environ)"),
    ],
)
def test_allowed_line_passes(path, source):
    """The checks above do not complain about what is allowed."""
    assert violations(path, source) == []


def module_of(path: str) -> str:
    """The dotted name of a file."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def import_graph() -> dict[str, set[str]]:
    """Module -> modules of ours that it imports, lazily and for types too."""
    modules = {module_of(path): path for path in sources()}
    graph: dict[str, set[str]] = defaultdict(set)
    for module, path in modules.items():
        for name, _ in imports(tree_of(path)):
            target = name if name in modules else name.rpartition(".")[0]
            if target in modules and target != module:
                graph[module].add(target)
    return graph


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that reach each other (Tarjan's strongly connected components of more than one)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for target in sorted(graph.get(module, ())):
            if target not in index:
                visit(target)
            if target in stack:
                low[module] = min(low[module], low[target])
        if low[module] == index[module]:
            group = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(group) > 1:
                found.append(sorted(group))

    for module in sorted(graph):
        if module not in index:
            visit(module)
    return found


def test_no_circle_of_files():
    """No file imports itself by way of others, lazy imports and those for types included."""
    assert circles(import_graph()) == []
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]


def test_no_folder_is_crowded():
    """A folder of a room holds at most 14 Python files beside its `__init__.py` and its sub-folders."""
    counts = Counter(str(Path(path).parent) for path in sources() if Path(path).name != "__init__.py")
    assert {folder: count for folder, count in counts.items() if count > MOST_FILES_IN_A_FOLDER} == {}


def test_no_room_is_a_heap():
    """The largest room holds at most 22 % of all lines."""
    lines: Counter[str] = Counter()
    for path in sources():
        lines[path.split("/")[0]] += len((ROOT / path).read_text(encoding="utf-8").splitlines())
    room, largest = lines.most_common(1)[0]
    assert largest <= LARGEST_ROOM_SHARE * lines.total(), f"{room} holds {largest / lines.total():.1%}"


@pytest.mark.parametrize("room", ROOMS)
def test_no_name_twice_in_a_room(room):
    """Neither a file name nor the name of a public class stands for two things in one room."""
    paths = [path for path in sources() if path.startswith(room + "/")]
    files = Counter(Path(path).name for path in paths if Path(path).name not in FILE_NAMES_MAY_REPEAT)
    classes = Counter(
        node.name
        for path in paths
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert [name for name, count in (files + classes).items() if count > 1] == []


def test_no_file_is_a_drawer():
    """No utils.py, helpers.py, common.py or misc.py: a module is named after what is in it."""
    assert [path for path in sources() if Path(path).name in FORBIDDEN_NAMES] == []


def test_no_packages_under_tests():
    """An __init__.py under tests would hide the room of the same name."""
    assert [str(path) for path in (ROOT / "tests").rglob("__init__.py")] == []


def tracked_files() -> list[str]:
    """Files of the checkout that git knows or would add."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [path for path in listed if (ROOT / path).is_file()]


def named_paths(path: str) -> Iterator[str]:
    """Paths of Python and Markdown files in backticks in a file's text.

    A name with a folder is looked up from the checkout's root, from the file's folder and below any folder.
    """
    yield from re.findall(r"`([\w./-]*\w\.(?:py|md))`", (ROOT / path).read_text(encoding="utf-8"))


def test_paths_named_in_text_exist():
    """Every `*.py` and `*.md` path in backticks, in comments, docstrings and documents, is the path of a file."""
    known = tracked_files()
    ours = [path for path in known if path.endswith((".py", ".md")) and not path.startswith("tests/data/")]
    missing = [
        f"{path} names {name}"
        for path in ours
        if path not in MAY_NAME_MISSING_PATHS and not path.startswith("docs/develop/decisions/")
        for name in named_paths(path)
        if not any(file == name or file.endswith(f"/{name}") for file in known)
    ]
    assert missing == []


CHILD = """
import importlib, pkgutil, socket, sys
for name in {blocked!r}:
    sys.modules[name] = None

def refuse(*_):
    raise AssertionError("importing connects to something")

socket.socket.connect = refuse
for name in {modules!r}:
    module = importlib.import_module(name)
    for found in pkgutil.walk_packages(getattr(module, "__path__", []), name + "."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)
"""
OTHER_ROOMS = tuple(room for room in ROOMS if room not in ("cli",))


@pytest.mark.parametrize(
    ("modules", "blocked"),
    [
        (["label_config"], (*MODEL_LIBRARIES, *SERVICE_LIBRARIES, "osprey_model", "worker", "backend", "job_queue")),
        (["job_queue.contracts", "job_queue.errors", "job_queue.mask_codec"], (*MODEL_LIBRARIES, "worker", "redis")),
        (["job_queue"], (*MODEL_LIBRARIES, "osprey_model", "label_studio_sdk", "worker", "learning")),
        (["registry"], (*MODEL_LIBRARIES, "osprey_model", "worker", "learning")),
        (["backend"], (*MODEL_LIBRARIES, "osprey_model", "worker", "learning", "registry")),
        (["worker.main", "learning.main", "learning.jobs", "learning.schedule"], MODEL_LIBRARIES),
        (["cli.main"], (*MODEL_LIBRARIES, *OTHER_ROOMS, "redis")),
    ],
    ids=lambda value: value[0],
)
def test_imports_without(modules, blocked):
    """Each imports in a fresh process in which what it must do without is not there and nothing can connect."""
    code = CHILD.format(blocked=list(blocked), modules=modules)
    child = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert child.returncode == 0, child.stderr


def test_config_check_needs_no_model_library(tmp_path):
    """`osprey config check` runs where no torch is installed."""
    code = "import sys\nfor name in {!r}:\n    sys.modules[name] = None\nfrom cli.main import app\napp()\n"
    command = [sys.executable, "-c", code.format(MODEL_LIBRARIES), "config", "check", "label_config/bitmask.xml"]
    child = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert child.returncode == 0, child.stderr
    assert "category" in child.stdout
