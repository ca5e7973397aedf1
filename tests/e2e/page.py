"""Label Studio's labeling page as an annotator uses it: tools, clicks, the panel, submit.

All that tests check is read from the page: the panel's text from the DOM, and regions from the editor's own store
(`window.Htx`), from which the page draws.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from playwright.sync_api import Browser, Page, Playwright
from playwright.sync_api import TimeoutError as PageTimeout

from label_config.geometry.region_mask import region_mask

ANSWER_LIMIT_S = 60.0
PAGE_LIMIT_S = 120  # for Label Studio's pages on a busy machine
# Without Chromium's background requests, which would all fail in a closed network.
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# Exceptions of Label Studio's page that do not depend on the backend: leaving a task whose image is still loading, and
# a script of the page that was not loaded in time.
LABEL_STUDIOS_OWN_ERRORS = ("[mobx-state-tree] Failed to find the parent of ImageEntity", "Loading chunk")

READ_REGIONS = """() => {
  const annotation = window.Htx.annotationStore.selected;
  return annotation.regionStore.regions.map(region => ({
    id: region.cleanId, type: region.type, parent_id: (region.parentID || '').split('#')[0] || null,
    origin: region.origin, note: region.meta?.text?.join?.(' ') ?? '',
    labels: region.labels ?? [],
    fields: Object.fromEntries(region.results.filter(r => r.from_name.perregion)
      .map(r => [r.from_name.name, JSON.parse(JSON.stringify(r.mainValue))])),
    items: region.serialize ? annotation.serializeAnnotation().filter(i => i.id === region.cleanId) : [],
  }));
}"""


@dataclass(frozen=True)
class ShownRegion:
    """One region in the page's store. `fields` maps a control's name to its value."""

    id: str
    type: str
    parent_id: str | None
    origin: str
    note: str
    labels: list[str]
    fields: dict[str, Any]
    items: list[dict[str, Any]] = field(repr=False)  # contains images as text, which would fill a failure's message

    @property
    def mask(self) -> np.ndarray:
        """The region's mask, bool (H, W), from what the page would submit."""
        mask = next((found for item in self.items if (found := region_mask(item)) is not None), None)
        assert mask is not None, f"region {self.id} of type {self.type} has no geometry: {self.items}"
        return mask

    def text(self, name: str) -> str:
        """Return a field's values as one text; "" for an empty field."""
        value = self.fields.get(name) or []
        return "; ".join(str(each) for each in value)


def launch_browser(playwright: Playwright, executable: str) -> Browser:
    """Start Chromium without a visible window."""
    return playwright.chromium.launch(executable_path=executable, args=CHROMIUM_FLAGS)


class LabelingPage:
    """One annotator's browser window."""

    def __init__(self, browser: Browser, url: str, shots: Path, *, auto_accept: bool = True) -> None:
        context = browser.new_context(viewport={"width": 1500, "height": 950}, base_url=url)
        context.set_default_timeout(PAGE_LIMIT_S * 1000)
        accept = "true" if auto_accept else "false"
        context.add_init_script(
            f"localStorage.setItem('autoAnnotation', 'true');localStorage.setItem('autoAcceptSuggestions', '{accept}')"
        )
        self._shots = shots
        self.page: Page = context.new_page()
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self._note_error(str(error)))

    def _note_error(self, text: str) -> None:
        if not text.startswith(LABEL_STUDIOS_OWN_ERRORS):
            self.errors.append(text)

    def close(self) -> None:
        """Close the window."""
        self.page.context.close()

    def sign_in(self, email: str, password: str) -> None:
        """Log in through the login page."""
        self.page.goto("/user/login/")
        self.page.fill("input[name=email]", email)
        self.page.fill("input[name=password]", password)
        self.page.click("button[type=submit]")
        self.page.wait_for_url(lambda address: "/user/login" not in address)

    def open_task(self, project_id: int, task_id: int) -> None:
        """Open a task for labeling and wait until its image is drawn."""
        address = f"/projects/{project_id}/data?task={task_id}"
        self.page.goto(address)
        try:
            self.page.wait_for_selector(".konvajs-content", timeout=PAGE_LIMIT_S / 3 * 1000)
        except PageTimeout:  # a busy Label Studio server sometimes drops a file of the page
            self.page.goto(address)
            self.page.wait_for_selector(".konvajs-content")
        self.page.wait_for_function(
            "id => { const s = window.Htx, a = s?.annotationStore?.selected;"
            " return s?.task?.id == id && a?.objects?.some(o => o.type === 'image' && o.imageIsLoaded !== false"
            " && o.stageWidth > 1); }",
            arg=task_id,
        )
        # The editor replaces its annotation once more after the drafts arrive.
        self.page.wait_for_load_state("networkidle")

    def open_broken_task(self, project_id: int, task_id: int) -> None:
        """Open a task whose image does not load."""
        self.page.goto(f"/projects/{project_id}/data?task={task_id}")
        self.page.wait_for_function("id => window.Htx?.task?.id == id", arg=task_id)

    def choose(self, tool: Literal["point", "box"]) -> None:
        """Pick a smart tool from the last group of the toolbar."""
        name = {"point": "key-point-tool", "box": "rectangle-tool"}[tool]
        self.page.locator(".lsf-tool_smart").first.hover()
        self.page.locator(f".lsf-tool_smart[aria-label={name}]").click()

    def click(self, x_pct: float, y_pct: float, *, negative: bool = False, ctrl: bool = False) -> None:
        """Click at percent coordinates of the image; negative is Alt+click."""
        x_px, y_px = self._screen(x_pct, y_pct)
        keys = [key for key, held in (("Alt", negative), ("Control", ctrl)) if held]
        self.page.mouse.move(x_px, y_px)
        for key in keys:
            self.page.keyboard.down(key)
        self.page.mouse.click(x_px, y_px)
        for key in keys:
            self.page.keyboard.up(key)

    def click_inside(self, region_id: str, x_pct: float, y_pct: float, *, negative: bool = False) -> None:
        """Click inside a region as a prompt. The region is selected first; otherwise the click would only select it."""
        self.select(region_id)
        self.click(x_pct, y_pct, negative=negative)

    def paint(self, label: str, path_pct: list[tuple[float, float]]) -> None:
        """Draw by hand with the brush of the mask control."""
        self.page.locator(".lsf-label", has_text=label).click()
        self.page.locator(".lsf-tool[aria-label=bitmask-tool]").click()
        points = [self._screen(*point) for point in path_pct]
        self.page.mouse.move(*points[0])
        self.page.mouse.down()
        for point in points[1:]:
            self.page.mouse.move(*point, steps=5)
        self.page.mouse.up()
        self.unselect()

    def wait_for_suggestions(self, count: int) -> None:
        """Wait until the answer to the last prompt is shown for acceptance (auto-accept off)."""
        self.page.wait_for_timeout(300)  # the page sends the prompt a moment after the click
        self.wait_for(
            f"{count} suggestions and nothing on its way",
            lambda: (
                not self.is_waiting()
                and self.page.evaluate("() => window.Htx.annotationStore.selected.suggestions.size") == count
            ),
        )

    def accept_suggestions(self) -> None:
        """Press the check mark in the bottom bar."""
        self.page.get_by_test_id("bottombar-accept-suggestions-button").click()

    def drag(self, start_pct: tuple[float, float], end_pct: tuple[float, float]) -> None:
        """Drag from one point of the image to another, in small steps as by hand."""
        x0, y0 = self._screen(*start_pct)
        x1, y1 = self._screen(*end_pct)
        self.page.mouse.move(x0, y0)
        self.page.mouse.down()
        for step in range(1, 9):
            self.page.mouse.move(x0 + (x1 - x0) * step / 8, y0 + (y1 - y0) * step / 8)
        self.page.mouse.up()

    def regions(self) -> list[ShownRegion]:
        """Return all regions of the page, including pending points."""
        return [ShownRegion(**each) for each in self.page.evaluate(READ_REGIONS)]

    def masks(self) -> list[ShownRegion]:
        """Return the regions that are masks, without prompts."""
        return [region for region in self.regions() if not region.type.startswith(("keypoint", "rectangle"))]

    def pending_prompts(self) -> list[ShownRegion]:
        """Return the prompts that still wait for an answer."""
        return [region for region in self.regions() if region.type.startswith(("keypoint", "rectangle"))]

    def wait_for(self, what: str, condition: Callable[[], object], limit_s: float = ANSWER_LIMIT_S) -> Any:
        """Wait for the first truthy value of `condition`, and return it; after `limit_s`, fail with `what`."""
        deadline = time.monotonic() + limit_s
        while not (value := condition()):
            if time.monotonic() > deadline:
                file = self.shot("gave-up")
                shown = [(region.id, region.type, region.fields, region.note) for region in self.regions()]
                raise AssertionError(f"not within {limit_s:.0f} s: {what}; screenshot {file}; regions {shown}")
            self.page.wait_for_timeout(50)
        return value

    def wait_for_masks(self, count: int, limit_s: float = ANSWER_LIMIT_S) -> list[ShownRegion]:
        """Wait until there are `count` masks and no prompt is pending; return the masks."""
        found: list[ShownRegion] = self.wait_for(
            f"{count} masks and no pending prompt",
            lambda: masks if len(masks := self.masks()) == count and not self.pending_prompts() else None,
            limit_s,
        )
        return found

    def is_waiting(self) -> bool:
        """Return whether the page waits for the backend's answer to a prompt."""
        return bool(self.page.evaluate("() => !!window.Htx.awaitingSuggestions"))

    def select(self, region_id: str) -> None:
        """Select a region through the Regions panel."""
        if self._selected() == region_id:
            return  # a click on its row would unselect it
        closed = self.page.locator("[class*='switcher_close']")  # parts are hidden in the folded row of their object
        while closed.count():
            closed.first.click()
            self.page.wait_for_timeout(100)
        index = [region.id for region in self.regions()].index(region_id)
        shown = self.page.evaluate(
            "id => window.Htx.annotationStore.selected.regionStore.regions.find(r => r.cleanId === id).region_index",
            region_id,
        )
        row = self.page.locator(".lsf-outliner-item").filter(
            has=self.page.locator(".lsf-outliner-item__index", has_text=f"{shown or index + 1}")
        )
        row.first.locator(".lsf-outliner-item__title").click()
        self.wait_for(f"region {region_id} selected", lambda: self._selected() == region_id)

    def unselect(self) -> None:
        """Select nothing."""
        self.page.evaluate("() => window.Htx.annotationStore.selected.unselectAll()")

    def panel_text(self, field: str) -> str:
        """Return the text that the panel beside the image shows for a per-region field; "" for an empty one."""
        return "; ".join(self.page.locator(f'[name^="{field}:"]').all_inner_texts())

    def region_list_text(self) -> list[str]:
        """Return the texts of the Regions panel (controls with displayMode="region-list")."""
        boxes = self.page.locator(".lsf-outliner-item__wrapper textarea, .lsf-textarea-tag_outliner textarea")
        return [text for text in boxes.evaluate_all("boxes => boxes.map(box => box.value)") if text]

    def notice(self) -> str:
        """Return the notice for the image as the page shows it."""
        return self.panel_text("notice")

    def edit_text(self, field: str, text: str) -> None:
        """Correct a text field of the selected region with its pencil."""
        view = self.page.locator('[data-testid="textarea-region"]').filter(has=self.page.locator(f'[name^="{field}:"]'))
        control = self.page.locator('[data-testid="textarea-control"]').filter(has=view).first
        view.first.hover()
        view.first.locator('[data-testid="htx-textbox-edit-button"]').click()
        box = control.locator("textarea, input").last
        box.fill(text)
        box.press("Enter")
        self.page.locator("body").click(position={"x": 5, "y": 500})

    def type_text(self, field: str, text: str) -> None:
        """Type into a text field of the selected region that is still empty."""
        box = self.page.locator(f'textarea[name="{field}"], input[name="{field}"]').first
        box.fill(text)
        box.press("Enter")

    def submit(self) -> int:
        """Press Submit and return the annotation's id."""
        with self.page.expect_response(
            lambda answer: "/annotations" in answer.url and answer.request.method in ("POST", "PATCH")
        ) as waiting:
            self.page.get_by_role("button", name="Submit").click()
        answer = waiting.value
        assert answer.ok, f"submit: {answer.status} {answer.text()[:500]}"
        return int(answer.json()["id"])

    def shot(self, name: str) -> Path:
        """Save a screenshot in the folder of this test."""
        self._shots.mkdir(parents=True, exist_ok=True)
        file = self._shots / f"{name}.png"
        self.page.screenshot(path=file)
        return file

    def _selected(self) -> str | None:
        region_id: str | None = self.page.evaluate(
            "() => window.Htx.annotationStore.selected.highlightedNode?.cleanId ?? null"
        )
        return region_id

    def _screen(self, x_pct: float, y_pct: float) -> tuple[float, float]:
        frame = self.page.locator(".konvajs-content").first.bounding_box()
        assert frame is not None, "no image on the page"
        return frame["x"] + frame["width"] * x_pct / 100, frame["y"] + frame["height"] * y_pct / 100
