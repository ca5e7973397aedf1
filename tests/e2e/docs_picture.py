"""Make the README's moving picture from the real page: a click, its fields, a part, a correction, Submit.

A private stack is started, an annotator's hand is simulated in Chromium, and the browser's own frames (with the times
at which it painted them) become an animated WebP. A drawn pointer and a caption strip are added; nothing else is.

    python -m tests.e2e.docs_picture --out docs/images/click.webp --still docs/images/click.png
"""

from __future__ import annotations

import argparse
import base64
import io
import os
import shutil
import tempfile
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image, ImageChops, ImageDraw, ImageFont
from playwright.sync_api import Error as BrowserError
from playwright.sync_api import Locator, Page, sync_playwright

from demo.scenes import DEMO_SEEDS, Scene, SceneObject, ScenePart, make_scene
from label_config.ready_configs import BITMASK
from tests.e2e.page import LabelingPage, launch_browser
from tests.e2e.running_stack import Project, RunningStack
from tests.e2e.targets import pct

# What is shown
TITLE = "Drawn scenes"
SCENES = (DEMO_SEEDS[9], DEMO_SEEDS[6])  # the second one appears after Submit
OBJECT, PART = "rocket", "window"
CORRECTED = "porthole"  # the model's answer is right; a team may have its own word

# The page, in CSS pixels
VIEWPORT_WH = (1230, 664)  # narrower, and Submit is cut off

# The picture
WIDTH = 950
CAPTION_HEIGHT = 40
CAPTION_COLORS = ((31, 41, 55), (255, 255, 255))  # strip, text
FRAME_S = 0.08
QUALITY = 90
LONGEST_WAIT_S = 1.5  # a longer wait for the product is shortened, and the caption says it
SHORTENED_WAIT_S = 0.8
LARGEST_BYTES = 1_900_000
RIPPLE_S = 0.4
SHORTENED = "  (wait shortened)"

POINTER = ((0, 0), (0, 17), (4, 13.4), (6.6, 19.4), (9.4, 18.2), (6.8, 12.4), (12, 12))  # an arrow, its tip at (0, 0)


@dataclass
class Recording:
    """What happened, on the clock of `time.time()`, which is the clock of the browser's frames too."""

    frames: list[tuple[float, bytes]] = field(default_factory=list)  # PNG
    pointer: list[tuple[float, float, float]] = field(default_factory=list)  # x, y in CSS pixels
    presses: list[float] = field(default_factory=list)
    captions: list[tuple[float, str]] = field(default_factory=list)
    cuts: list[tuple[float, float]] = field(default_factory=list)  # left out of the picture
    start: float = 0.0
    end: float = 0.0
    still_at: float = 0.0

    def page_at(self, now: float) -> Image.Image:
        """The page as it was painted at that time."""
        index = max(0, bisect_right(self.frames, now, key=lambda frame: frame[0]) - 1)
        return Image.open(io.BytesIO(self.frames[index][1])).convert("RGB")


class FilmedPage(LabelingPage):
    """The labeling page, with what the hand needs to know of it."""

    def on_screen(self, scene: Scene, point_px: tuple[float, float]) -> tuple[float, float]:
        """Where a pixel of the scene is on the page."""
        return self._screen(*pct(scene, point_px))

    def selected_id(self) -> str | None:
        """The id of the selected region."""
        return self._selected()


class Annotator:
    """A hand whose movements are recorded: it moves, rests, clicks and types at a person's pace.

    On a busy machine the browser's remote control is slower than that pace; what it takes longer is left out of the
    picture. The time from a click to its answer is shown as it was, up to `LONGEST_WAIT_S`. A longer wait is shortened,
    and the caption says it.
    """

    def __init__(self, page: Page, at: tuple[float, float]) -> None:
        self.page = page
        self.recording = Recording()
        self._at = at
        page.mouse.move(*at)

    @contextmanager
    def record(self) -> Iterator[None]:
        """Collect the browser's frames and the pointer's path inside the block."""
        recording = self.recording
        devtools = self.page.context.new_cdp_session(self.page)

        def keep(frame: dict[str, Any]) -> None:
            recording.frames.append((frame["metadata"]["timestamp"], base64.b64decode(frame["data"])))
            with suppress(BrowserError):  # a frame that comes while the page closes
                devtools.send("Page.screencastFrameAck", {"sessionId": frame["sessionId"]})

        devtools.on("Page.screencastFrame", keep)
        devtools.send("Page.startScreencast", {"format": "png"})
        self.rest(0.5)  # the first frame arrives
        recording.start = time.time()
        recording.pointer.append((recording.start, *self._at))
        yield
        recording.end = time.time()
        devtools.send("Page.stopScreencast")
        devtools.detach()

    def say(self, caption: str) -> None:
        """Show a caption from now on."""
        self.recording.captions.append((time.time(), caption))

    @contextmanager
    def pace(self, seconds: float) -> Iterator[None]:
        """Show at most that much of what the block takes."""
        start = time.time()
        yield
        if (end := time.time()) > start + seconds:
            self.recording.cuts.append((start + seconds, end))

    def rest(self, seconds: float) -> None:
        """Leave the page alone for a while."""
        with self.pace(seconds):
            self.page.wait_for_timeout(seconds * 1000)

    def move_to(self, x: float, y: float, seconds: float = 0.36) -> None:
        """Move the pointer there, slow at both ends."""
        (x0, y0), start = self._at, time.time()
        while (share := min(1.0, (time.time() - start) / seconds)) < 1.0:
            eased = share * share * (3 - 2 * share)
            self._jump_to(x0 + (x - x0) * eased, y0 + (y - y0) * eased)
            self.page.wait_for_timeout(30)
        self._jump_to(x, y)

    def click(self, x: float, y: float) -> None:
        """Move there and click."""
        self.move_to(x, y)
        self.rest(0.1)
        self.recording.presses.append(time.time())
        self.page.mouse.click(x, y)  # not paced: the product's answer may begin here

    def click_on(self, target: Locator) -> None:
        """Move to the centre of an element and click it."""
        with self.pace(0):
            box = target.bounding_box()
        assert box is not None, f"{target} is not on the page"
        self.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)

    def type(self, text: str) -> None:
        """Type key by key."""
        for key in text:
            with self.pace(0.08):
                self.page.keyboard.type(key)
                self.page.wait_for_timeout(60)

    def wait(self, wait_for_it: Callable[[], Any]) -> Any:
        """Wait for the product's answer; of a long wait the middle is left out of the picture."""
        start = time.time()
        found = wait_for_it()
        end = time.time()
        if end - start > LONGEST_WAIT_S:
            self.recording.cuts.append((start + SHORTENED_WAIT_S / 2, end - SHORTENED_WAIT_S / 2))
            self.recording.captions.append((start, self.recording.captions[-1][1] + SHORTENED))
        return found

    def _jump_to(self, x: float, y: float) -> None:
        self.page.mouse.move(x, y)
        self._at = (x, y)
        self.recording.pointer.append((time.time(), x, y))


def perform(page: FilmedPage, scene: Scene) -> Recording:
    """Annotate the task that is open; the recording ends on the next task."""
    target = next(each for each in scene.objects if each.category == OBJECT)
    part = next(each for each in target.parts if each.name == PART)
    first_task = page.page.evaluate("() => window.Htx.task.id")
    on_part, on_object = (page.on_screen(scene, point) for point in (part.inner_point_px, _body(target, part)))
    hand = Annotator(page.page, at=(on_object[0] + 190, on_object[1] + 150))
    with hand.record():
        hand.say("Take the smart point tool and click an object")
        hand.rest(0.5)
        hand.click(*on_object)
        (whole,) = hand.wait(lambda: page.wait_for_masks(1))
        hand.say("SAM draws the mask")
        hand.rest(0.6)

        hand.say("Select it: Osprey has filled in every field")
        hand.click(*on_object)
        hand.wait(lambda: page.wait_for("the object selected", lambda: page.selected_id() == whole.id))
        hand.rest(1.5)
        hand.recording.still_at = time.time()

        hand.say("Click inside it: the part under the pointer")
        hand.click(*on_part)
        regions = hand.wait(lambda: page.wait_for_masks(2))
        nested = next(region for region in regions if region.id != whole.id)
        hand.say("The part is nested under its object and has its own fields")
        hand.click_on(page.page.locator("[class*='switcher_close']").first)
        row = page.page.locator(".lsf-outliner-item__title").nth(1)
        with hand.pace(0.2):
            row.wait_for()
        hand.click_on(row)
        hand.wait(lambda: page.wait_for("the part selected", lambda: page.selected_id() == nested.id))
        hand.rest(0.7)

        hand.say("Correct a field: corrections become training data")
        _correct_part(hand, page)
        hand.rest(0.3)

        hand.say("Submit, and the next image opens")
        hand.click_on(page.page.get_by_test_id("bottombar-submit-button"))
        hand.wait(lambda: _wait_for_another_task(page, first_task))
        hand.rest(0.9)
    return hand.recording


def _correct_part(hand: Annotator, page: FilmedPage) -> None:
    """Open the field of the part's name with its pencil, type the other word, press Enter."""
    view = page.page.locator('[data-testid="textarea-region"]').filter(has=page.page.locator('[name^="part:"]'))
    control = page.page.locator('[data-testid="textarea-control"]').filter(has=view).first
    with hand.pace(0):
        box = view.first.bounding_box()
    assert box is not None, "the field of the part's name is not on the page"
    hand.move_to(box["x"] + box["width"] - 60, box["y"] + box["height"] / 2)  # the pencil appears there
    hand.click_on(view.first.locator('[data-testid="htx-textbox-edit-button"]'))
    with hand.pace(0.2):
        control.locator("textarea, input").last.select_text()
    hand.rest(0.3)
    hand.type(CORRECTED)
    with hand.pace(0.3):
        page.page.keyboard.press("Enter")
        page.wait_for("the corrected field", lambda: CORRECTED in [each.text("part") for each in page.masks()])


def _body(target: SceneObject, part: ScenePart) -> tuple[float, float]:
    """A point of the object below the part, on the object's axis."""
    column, row = part.inner_point_px
    rows = part.mask.nonzero()[0]
    return column, row + (int(rows.max()) - int(rows.min())) * 1.1


def _wait_for_another_task(page: FilmedPage, task_id: int) -> None:
    page.page.wait_for_function(
        "id => { const s = window.Htx, a = s?.annotationStore?.selected;"
        " return s?.task && s.task.id != id && a?.objects?.some(o => o.type === 'image' && o.imageIsLoaded !== false"
        " && o.stageWidth > 1); }",
        arg=task_id,
    )


def open_first_task(page: FilmedPage, project: Project) -> None:
    """Open the project as "Label all tasks" does, with the panels at the size of the picture."""
    page.page.set_viewport_size({"width": VIEWPORT_WH[0], "height": VIEWPORT_WH[1]})
    page.page.goto(f"/projects/{project.id}/data?labeling=1")
    page.page.wait_for_selector(".konvajs-content")
    _wait_for_another_task(page, 0)
    page.page.wait_for_load_state("networkidle")
    # Of the side panel's two halves only the lower one, with the regions.
    page.page.locator(".lsf-tabs-panel").first.locator(".lsf-tabs-panel__toggle").last.click()
    page.choose("point")
    page.page.wait_for_timeout(1500)  # the image takes its new size


def film(recording: Recording) -> list[tuple[Image.Image, int]]:
    """Frames of the picture and how long each is shown, in ms."""
    shown: list[tuple[Image.Image, int]] = []
    now = recording.start
    while now < recording.end:
        for start, end in recording.cuts:  # in the order of time
            now = end if start <= now < end else now
        frame = draw_frame(recording.page_at(now), recording, now)
        if shown and ImageChops.difference(shown[-1][0], frame).getbbox() is None:
            shown[-1] = (shown[-1][0], shown[-1][1] + round(FRAME_S * 1000))
        else:
            shown.append((frame, round(FRAME_S * 1000)))
        now += FRAME_S
    return shown


def draw_frame(page: Image.Image, recording: Recording, now: float) -> Image.Image:
    """The page at `now`, with the pointer and the caption."""
    scale = WIDTH / VIEWPORT_WH[0]
    height = round(VIEWPORT_WH[1] * scale)
    frame = Image.new("RGB", (WIDTH, height + CAPTION_HEIGHT), CAPTION_COLORS[0])
    frame.paste(page.resize((WIDTH, height), Image.Resampling.LANCZOS, reducing_gap=None))
    _, x, y = recording.pointer[max(0, bisect_right(recording.pointer, (now, 1e9, 1e9)) - 1)]
    _draw_pointer(frame, x * scale, y * scale, min((now - at for at in recording.presses if at <= now), default=1e9))
    caption = next((text for at, text in reversed(recording.captions) if at <= now), recording.captions[0][1])
    middle = (WIDTH / 2, height + CAPTION_HEIGHT / 2)
    ImageDraw.Draw(frame).text(middle, caption, CAPTION_COLORS[1], ImageFont.load_default(18), anchor="mm")
    return frame


def _draw_pointer(frame: Image.Image, x: float, y: float, since_press_s: float) -> None:
    """An arrow, with a ring that widens after a press. Drawn four times as large, for smooth edges."""
    radius, finer = 26, 4
    left, top = round(x) - radius, round(y) - radius
    patch = frame.crop((left, top, left + 2 * radius, top + 2 * radius))
    patch = patch.resize((patch.width * finer, patch.height * finer))
    draw = ImageDraw.Draw(patch, "RGBA")
    centre = ((x - left) * finer, (y - top) * finer)
    if since_press_s < RIPPLE_S:
        share = since_press_s / RIPPLE_S
        ring, opacity = (6 + 16 * share) * finer, round(230 * (1 - share))
        draw.circle(centre, ring, fill=(250, 204, 21, opacity // 3), outline=(202, 138, 4, opacity), width=2 * finer)
    arrow = [(centre[0] + dx * finer, centre[1] + dy * finer) for dx, dy in POINTER]
    draw.polygon(arrow, fill=(20, 20, 20))
    draw.line([*arrow, arrow[0], arrow[1]], fill=(255, 255, 255), width=round(1.5 * finer), joint="curve")
    frame.paste(patch.resize((2 * radius, 2 * radius), Image.Resampling.LANCZOS), (left, top))


def save(shown: list[tuple[Image.Image, int]], out: Path) -> None:
    """Write the animated WebP, which loops."""
    frames, durations = [frame for frame, _ in shown], [duration for _, duration in shown]
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_suffix(".part.webp")
    frames[0].save(
        part, save_all=True, append_images=frames[1:], duration=durations, loop=0,
        quality=QUALITY, method=6, allow_mixed=True, kmin=0, kmax=1000,
    )  # fmt: skip
    size = part.stat().st_size
    assert size < LARGEST_BYTES, f"{part} has {size} bytes, more than {LARGEST_BYTES}: lower QUALITY"
    part.replace(out)
    print(f"{out}: {size / 1000:.0f} kB, {sum(durations) / 1000:.1f} s, {len(frames)} frames, {frames[0].size}")


def make_picture(state_dir: Path, out: Path, still: Path | None) -> None:
    """Start a stack in `state_dir`, make the picture, stop the stack."""
    executable = os.environ.get("OSPREY_CHROMIUM") or shutil.which("chromium")
    assert executable, "chromium is missing: `make docs-picture` installs Debian's, or name one in OSPREY_CHROMIUM"
    stack = RunningStack(state_dir)
    try:
        print("Starting a stack of its own: two minutes or so.", flush=True)
        stack.command("up")
        scenes = [make_scene(seed) for seed in SCENES]
        project = stack.make_project(TITLE, BITMASK.read_text(encoding="utf-8"), [scene.image for scene in scenes])
        with stack.api() as api:  # without "Skip" the bottom bar fits the narrow page
            api.call("PATCH", f"/api/projects/{project.id}", json={"show_skip_button": False})
        with sync_playwright() as playwright:
            browser = launch_browser(playwright, executable)
            page = FilmedPage(browser, stack.url, state_dir / "screenshots")
            page.sign_in(*stack.admin)
            open_first_task(page, project)
            recording = perform(page, scenes[0])
            page.close()
            browser.close()
        assert not page.errors, f"the page threw exceptions: {page.errors}"
    finally:
        if not os.environ.get("OSPREY_E2E_STATE_DIR"):
            stack.command("down", check=False)
    save(film(recording), out)
    if still is not None:
        recording.page_at(recording.still_at).save(still, optimize=True)


def main() -> None:
    """Read the command line and make the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the animated WebP")
    parser.add_argument("--still", type=Path, help="a PNG of the page with the fields of the first click")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="osprey-picture-") as scratch:
        kept = os.environ.get("OSPREY_E2E_STATE_DIR")  # kept for the next run, as in the browser tests
        make_picture(Path(kept or scratch), arguments.out, arguments.still)


if __name__ == "__main__":
    main()
