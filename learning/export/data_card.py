"""Write README.md of a version, the data card, from the manifest's counts and a few pictures."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from learning.submitted.regions import SubmittedRegion

_MAX_CLASSES = 40
_BAR_CHARS = 30
_MAX_SHOWN_CHARS = 200

_USES = {
    "osprey-724k": (
        "`train/` and `held_out/` hold the Osprey-724K files and `click_questions.json`, which has each answer after "
        "the question that a click asks. `data.json` and `held_out.json` list `click_questions.json` for "
        "`osprey train --data`; `data_osprey_724k.json` and `held_out_osprey_724k.json` list the Osprey-724K files, "
        "which the released trainer also reads. `weight` of an entry multiplies its loss; the released trainer "
        "ignores it."
    ),
    "coco": "`train.json` and `held_out.json` are COCO instance files with `caption` and `texts` per region.",
    "parquet": (
        "`datasets.load_dataset(<this folder>)` has the splits `train` and `held_out`, a row per annotation; masks "
        "are COCO RLE."
    ),
}


def card_of(manifest: Mapping[str, Any], samples: Sequence[tuple[str, SubmittedRegion]]) -> str:
    """Return the data card as Markdown.

    Args:
        manifest: the version's manifest.
        samples: paths of pictures in the version, each with its region.
    """
    counts, options = manifest["counts"], manifest["options"]
    title = _plain(manifest["project"]["title"]) or "untitled"
    parts = [
        *_front_matter(manifest),
        f"# {title}: version {manifest['version']}",
        f"{counts['regions']} regions of {counts.get('annotations', 0)} annotations in "
        f"{counts.get('tasks', 0)} tasks of project {manifest['project']['id']}, annotated in Label Studio. "
        + (f"Previous version: {', '.join(manifest['parents'])}." if manifest["parents"] else "The first version."),
        _USES[manifest["format"]],
        "## Counts",
        _table(("", "number"), [(name.replace("_", " "), value) for name, value in counts.items()]),
        "### Fields",
        _table(
            ("field", "filled", "suggested", "accepted unchanged", "acceptance"),
            [
                (_plain(name), field["filled"], field["suggested"], field["accepted"], _share(field["acceptance"]))
                for name, field in manifest["fields"].items()
            ],
        ),
        "### Classes",
        _histogram(manifest["classes"]),
        "### Annotators and model versions",
        _table(
            ("annotator", "regions"),
            [(_plain(name), value) for name, value in manifest["annotators"].items()],
        ),
        _table(("model version", "regions"), [(_plain(n), value) for n, value in manifest["model_versions"].items()]),
        "### Split",
        f"By image: {options['held_out_share']:.0%} are held out, by the hash of the oldest image of a group (seed "
        f"{options['seed']}); "
        + (
            "images that are nearly identical form one group."
            if options["with_images"]
            else "images with the same address form one group (the export has no images to compare)."
        ),
        _table(
            ("side", "images", "annotations", "regions"),
            [(side, each["images"], each["annotations"], each["regions"]) for side, each in manifest["sides"].items()],
        ),
        "### Left out or changed",
        _table(("kind", "times"), list(manifest["problems"].items()))
        if manifest["problems"]
        else "Nothing: every submitted region is included.",
        "`problems.jsonl` has task, annotation and region of each.",
        "## Samples",
        *(_samples(samples) if samples else [_no_samples(options)]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(manifest: Mapping[str, Any]) -> list[str]:
    if manifest["format"] != "parquet":
        return []
    lines = ["---", "configs:", "- config_name: default", "  data_files:"]
    for side, each in manifest["sides"].items():
        if each["regions"]:
            lines += [f"  - split: {side}", f"    path: data/{side}-*.parquet"]
    return ["\n".join([*lines, "---"])]


def _samples(samples: Sequence[tuple[str, SubmittedRegion]]) -> list[str]:
    shown = []
    for path, region in samples:
        texts = "; ".join(_plain(f"{name}: {', '.join(values)}") for name, values in sorted(region.texts.items()))
        shown.append(f"![task {region.task}]({path})\n\nTask {region.task}, region {_plain(region.region)}: {texts}")
    return shown


def _no_samples(options: Mapping[str, Any]) -> str:
    if options["with_images"]:
        return "No pictures: no region with field values has an image that could be read."
    return "No pictures: the version was exported without images."


def _histogram(classes: Mapping[str, int]) -> str:
    if not classes:
        return "No categories."
    ordered = sorted(classes.items(), key=lambda each: (-each[1], each[0]))
    top = ordered[0][1]
    rows: list[tuple[object, ...]] = [
        (_plain(name), count, "█" * max(1, round(_BAR_CHARS * count / top))) for name, count in ordered[:_MAX_CLASSES]
    ]
    if len(ordered) > _MAX_CLASSES:
        rest = sum(count for _, count in ordered[_MAX_CLASSES:])
        rows.append((f"{len(ordered) - _MAX_CLASSES} more", rest, ""))
    return _table(("category", "regions", ""), rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _plain(text: str) -> str:
    """Escape a text of an annotator, so that it cannot become markup, a table cell or a line of its own."""
    line = re.sub(r"\s+", " ", text.encode("utf-8", "backslashreplace").decode("utf-8")).strip()[:_MAX_SHOWN_CHARS]
    return re.sub(r"[<>|`\[\]\\*_#]", lambda found: f"&#{ord(found.group())};", line)
