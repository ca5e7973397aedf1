"""Render the report's figures as one self-contained HTML page, without scripts, fonts or images from elsewhere.

The template escapes every text of annotators and models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from learning.report.charts import NARROW, Line, line_chart, reliability_chart
from learning.report.figures import Figures
from learning.report.version_history import Examined

_TEMPLATE = "report.html.jinja"


def report_page(
    figures: Figures,
    title: str,
    pictures: Mapping[tuple[int, str], str],
    *,
    made_at: datetime,
    task_url: str | None = None,
    versions: Sequence[Examined] = (),
) -> str:
    """Return the page as HTML.

    Args:
        figures: the numbers to show.
        title: title of the project.
        pictures: of the worst mistakes, from `learning.report.gallery.pictures_of`.
        made_at: shown in the footer.
        task_url: a URL with `{task}` in the place of a task's number; None: no links.
        versions: the registered versions, oldest first.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda share: "–" if share is None else f"{100 * share:.0f} %"
    environment.filters["tenth"] = lambda share: "–" if share is None else f"{100 * share:.1f} %"
    environment.filters["number"] = lambda value: "–" if value is None else f"{value:.1f}"
    overall = next((each for each in figures.reliability if each.field is None), None)
    return environment.get_template(_TEMPLATE).render(
        figures=figures,
        versions=versions,
        title=title,
        pictures=pictures,
        made_at=made_at.strftime("%Y-%m-%d %H:%M UTC"),
        task_url=None if task_url is None else lambda task: task_url.replace("{task}", str(task)),
        charts=_charts(figures) if figures.rounds else None,
        reliability=None
        if overall is None
        else reliability_chart(overall.bins, title="Share of accepted suggestions, by the model's confidence"),
        overall=overall,
        tiles=_tiles(figures),
    )


def _charts(figures: Figures) -> dict[str, Any]:
    rounds = figures.rounds
    names = [each.model_version.partition("@")[0] for each in rounds]

    def lines(of: str, scale: float) -> list[Line]:
        by_field = [
            Line(
                field,
                tuple(
                    next((scale * getattr(found, of) for found in each.fields if found.field == field), None)
                    for each in rounds
                ),
                color,
            )
            for color, field in enumerate(figures.fields)
        ]
        return [line for line in by_field if any(value is not None for value in line.values)]

    total = Line("all fields", tuple(each.corrections_per_100 for each in rounds), is_total=True)
    timed = [each.seconds_per_region for each in rounds]
    return {
        "corrections": line_chart(
            names,
            [total, *lines("corrections_per_100", 1.0)],
            title="Corrections per 100 regions, by model version and field",
            unit="per 100 regions",
        ),
        "edits": line_chart(
            names,
            lines("edit_share", 100.0),
            title="Mean edit distance by model version and field",
            unit="% of the text",
            width=NARROW,
        ),
        "seconds": line_chart(
            names,
            [Line("median", tuple(timed), is_total=True)],
            title="Seconds per region by model version",
            unit="seconds",
            width=NARROW,
        )
        if any(value is not None for value in timed)
        else None,
    }


def _tiles(figures: Figures) -> list[tuple[str, str, str]]:
    """Return the tiles at the top of the page: number, label and explanation."""
    counts = figures.counts
    tiles = [(str(counts["regions"]), "regions", f"in {counts['annotations']} annotations of {counts['tasks']} tasks")]
    if counts["with_suggestion"]:
        share = counts["corrected"] / counts["with_suggestion"]
        tiles.append((f"{100 * (1 - share):.0f} %", "accepted unchanged", f"{counts['corrected']} regions corrected"))
    if figures.rounds:
        first, last = figures.rounds[0], figures.rounds[-1]
        before = "" if len(figures.rounds) == 1 else f"{first.corrections_per_100:.0f} with the first version"
        tiles.append((f"{last.corrections_per_100:.0f}", "corrections per 100 regions", before))
        if last.seconds_per_region is not None:
            timed = f"median of {last.timed_annotations} annotations"
            tiles.append((f"{last.seconds_per_region:.0f} s", "per region", timed))
    blind = sum(each.blind_n for each in figures.blind)
    if blind:
        right = sum(each.right * each.blind_n for each in figures.blind) / blind
        tiles.append((f"{100 * right:.0f} %", "correct in blind regions", f"{counts['blind']} regions"))
    return tiles
