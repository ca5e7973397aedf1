"""One training step of the small SAM: a batch of scenes, many prompts on each.

The slots of the multimask output have fixed meanings here (sub-part, part, object): a drawn scene
knows all three at every click, so no slot has to compete for a mask as in SAM's own training. Slot 0
learns from prompts that leave no doubt: boxes, and corrections of an earlier mask.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything.modeling import Sam
from torch import Tensor

from demo.training.sam.crops import View
from demo.training.sam.data import LEVELS, Targets, targets_of
from demo.training.sam.losses import dense_loss, dense_targets, mask_losses, true_iou
from demo.training.sam.model import CELLS_PER_TOKEN, DenseHead, HalfCopy, decode_prompts
from demo.training.sam.prompts import BACKGROUND, Clicks, draw_boxes, draw_clicks, draw_correction

# P prompts, K masks per prompt (4), h w cells of the picture (the padding is cut off)

_IOU_WEIGHT = 2.0
_CUT_SHARE = 0.75  # of the scenes are decoded without the padding below the picture: a quarter less work
CELL_INPUT_PX = 2  # 4 cells per token of 8 px


@dataclass(frozen=True, slots=True)
class PromptPlan:
    """How many prompts a scene gets per step."""

    clicks: int  # of which
    background: int
    boxes: int
    corrections: int  # one of them of a box


WHOLE_PLAN = PromptPlan(clicks=8, background=1, boxes=1, corrections=3)
CROP_PLAN = PromptPlan(clicks=6, background=1, boxes=1, corrections=2)


@dataclass
class StepReport:
    """Means over a step, for the log."""

    mask: float = 0.0
    iou: float = 0.0
    dense: float = 0.0
    object_iou: float = 0.0
    part_iou: float = 0.0
    single_iou: float = 0.0


def train_step(
    sam: Sam, half: HalfCopy, head: DenseHead, views: list[View], plan: PromptPlan, rng: np.random.Generator
) -> StepReport:
    """Leave the gradients of a batch in the parameters and tell the losses."""
    device = sam.device
    scenes = [view.scene for view in views]
    cell_px = CELL_INPUT_PX * scenes[0].region_map.shape[1] // scenes[0].image.shape[1]
    targets = [targets_of(scene, cell_px) for scene in scenes]
    pixels = torch.stack([_pixels(sam, view) for view in views]).bfloat16()
    report = StepReport()
    half.pull_weights()
    embedding_BCHW = half.encode(pixels, [view.origin for view in views])
    # The decoder runs scene by scene on a detached copy: small tensors stay in the CPU's cache.
    leaf_BCHW = embedding_BCHW.detach().float().requires_grad_()
    cells, classes = zip(*(dense_targets(*pair) for pair in zip(scenes, targets, strict=True)), strict=True)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        maps = head(leaf_BCHW)
    dense = dense_loss(maps, _stacked(cells, device), _stacked(classes, device))
    torch.autograd.backward(dense)
    report.dense = float(dense.detach())
    for idx, (view, target) in enumerate(zip(views, targets, strict=True)):
        loss = _view_loss(sam, half, leaf_BCHW[idx : idx + 1], view, target, plan, rng, report, len(views))
        torch.autograd.backward(loss / len(views))
    assert leaf_BCHW.grad is not None  # every view has a dense loss
    torch.autograd.backward(embedding_BCHW, leaf_BCHW.grad.to(embedding_BCHW.dtype))
    half.push_gradients()
    return report


def _view_loss(
    sam: Sam,
    half: HalfCopy,
    embedding_1CHW: Tensor,
    view: View,
    targets: Targets,
    plan: PromptPlan,
    rng: np.random.Generator,
    report: StepReport,
    batch_size: int,
) -> Tensor:
    device, scene = embedding_1CHW.device, view.scene
    origin_px = np.array(view.origin[::-1], np.float32) * sam.image_encoder.patch_embed.proj.stride[0]
    scale = scene.image.shape[1] / scene.region_map.shape[1]
    clicks = draw_clicks(scene, plan.clicks, plan.background, scale, rng)
    boxes, box_regions = draw_boxes(scene, plan.boxes, scale, rng)
    clicks = Clicks(clicks.points + origin_px, clicks.regions)
    boxes = boxes + np.tile(origin_px, 2)
    coverage = targets.of(scene.members)
    height, width = coverage.shape[1:]
    if rng.random() < _CUT_SHARE:
        embedding_1CHW = embedding_1CHW[:, :, : -(-height // CELLS_PER_TOKEN)]
    positions_1CHW = _positions(sam, embedding_1CHW, view)
    points = torch.from_numpy(clicks.points).to(device)[:, None]
    sparse = torch.cat(
        [
            _sparse(sam, points, torch.ones(len(points), 1, device=device), None),
            _sparse(sam, None, None, torch.from_numpy(boxes).to(device)),
        ]
    )
    full_logits, predicted = _decode(sam, half, embedding_1CHW, positions_1CHW, sparse, None)
    logits = full_logits[:, :, :height, :width]
    num_clicks = len(clicks.points)

    # Clicks: slots 1..3; what a click on nothing gives is only told to be worthless.
    regions = torch.from_numpy(clicks.regions.astype(np.int64)).to(device)
    truth = torch.from_numpy(coverage).to(device)
    known = regions >= 0
    click_truth = truth[regions[known]]
    click_logits = logits[:num_clicks, 1:][known]
    losses = [mask_losses(click_logits, click_truth)]
    ious = true_iou(click_logits.detach(), click_truth)
    nothing = predicted[:num_clicks, 1:][regions == BACKGROUND]
    errors = [predicted[:num_clicks, 1:][known] - ious, nothing]
    level = torch.arange(LEVELS, device=device).expand_as(regions)[known]
    report.object_iou += _mean(ious[level == 2]) / batch_size
    report.part_iou += _mean(ious[level < 2]) / batch_size

    # Boxes: slot 0.
    box_truth = truth[torch.from_numpy(box_regions.astype(np.int64)).to(device)]
    losses.append(mask_losses(logits[num_clicks:, 0], box_truth))
    box_ious = true_iou(logits[num_clicks:, 0].detach(), box_truth)
    errors.append(predicted[num_clicks:, 0] - box_ious)

    # Corrections of what round one gave: slot 0.
    picked, second_logits, second_predicted = _corrections(
        sam,
        half,
        embedding_1CHW,
        positions_1CHW,
        origin_px,
        full_logits.detach(),
        clicks.points,
        clicks.regions,
        boxes,
        box_regions,
        coverage,
        plan,
        rng,
    )
    second_truth = truth[picked]
    second_logits = second_logits[:, 0, :height, :width]
    losses.append(mask_losses(second_logits, second_truth))
    second_ious = true_iou(second_logits.detach(), second_truth)
    errors.append(second_predicted[:, 0] - second_ious)
    report.single_iou += float(torch.cat([box_ious, second_ious]).mean()) / batch_size

    mask = torch.cat(losses).mean()
    iou = torch.cat(errors).square().mean()
    report.mask += float(mask.detach()) / batch_size
    report.iou += float(iou.detach()) / batch_size
    return mask + _IOU_WEIGHT * iou


def _corrections(
    sam: Sam,
    half: HalfCopy,
    embedding_1CHW: Tensor,
    positions_1CHW: Tensor,
    origin_px: NDArray[np.float32],
    full_logits_PKHW: Tensor,
    points: NDArray[np.float32],
    click_regions: NDArray[np.int16],
    boxes: NDArray[np.float32],
    box_regions: NDArray[np.int16],
    coverage: NDArray[np.float32],
    plan: PromptPlan,
    rng: np.random.Generator,
) -> tuple[list[int], Tensor, Tensor]:
    """A second round on some masks of the first: regions meant, logits and predicted IoUs.

    Per scene either the new click comes with everything before it (with or without the earlier
    logits) or alone with the logits: prompts of one call must have equally many tokens.
    """
    device = embedding_1CHW.device
    height, width = coverage.shape[1:]
    chosen: list[tuple[int, int, int]] = []  # prompt, slot, region
    for prompt in rng.permutation(len(points)).tolist():
        slots = np.flatnonzero(click_regions[prompt] >= 0)
        if len(slots) and len(chosen) < plan.corrections - 1:
            slot = int(rng.choice(slots))
            chosen.append((prompt, slot + 1, int(click_regions[prompt, slot])))
    chosen.append((len(points), 0, int(box_regions[0])))
    with_everything = rng.random() < 0.5
    sparse, use_logits = [], []
    for prompt, slot, region in chosen:
        mask = full_logits_PKHW[prompt, slot, :height, :width].cpu().numpy() > 0
        new_point, label = draw_correction(mask, coverage[region] > 0.5, CELL_INPUT_PX, rng)
        new_point = (new_point[0] + float(origin_px[0]), new_point[1] + float(origin_px[1]))
        is_box = prompt == len(points)
        news, labels = [new_point], [label]
        if with_everything and not is_box:
            news, labels = [tuple(points[prompt]), *news], [1, *labels]
        box = torch.from_numpy(boxes[:1]).to(device) if is_box and with_everything else None
        coords = torch.tensor([news], dtype=torch.float32, device=device)
        sparse.append(_sparse(sam, coords, torch.tensor([labels], device=device), box))
        use_logits.append(not with_everything or rng.random() < 0.5)
    picked = torch.tensor([prompt for prompt, _, _ in chosen], device=device)
    slots_P = torch.tensor([slot for _, slot, _ in chosen], device=device)
    earlier = full_logits_PKHW[picked, slots_P][:, None]
    # Called directly, because the prompt encoder takes masks of the whole input only.
    with_mask = sam.prompt_encoder.mask_downscaling(earlier)
    without = sam.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
    dense = torch.where(torch.tensor(use_logits, device=device)[:, None, None, None], with_mask, without)
    logits, predicted = _decode(sam, half, embedding_1CHW, positions_1CHW, torch.cat(sparse), dense)
    return [region for _, _, region in chosen], logits, predicted


def _sparse(sam: Sam, points: Tensor | None, labels: Tensor | None, boxes: Tensor | None) -> Tensor:
    """Prompt tokens (P, N, C), in float32: positions do not survive bfloat16."""
    clicks = None if points is None or labels is None else (points, labels)
    sparse: Tensor = sam.prompt_encoder(points=clicks, boxes=boxes, masks=None)[0]
    return sparse


def _decode(
    sam: Sam, half: HalfCopy, embedding_1CHW: Tensor, positions_1CHW: Tensor, sparse: Tensor, dense: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Logits (P, 4, 4h, 4w) and predicted IoUs (P, 4), in float32."""
    if dense is None:
        dense = sam.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
    logits, predicted = decode_prompts(
        half.decoder,
        (embedding_1CHW + dense).bfloat16(),
        positions_1CHW.bfloat16(),
        sparse.bfloat16(),
    )
    return logits.float(), predicted.float()


def _positions(sam: Sam, embedding_1CHW: Tensor, view: View) -> Tensor:
    """SAM's position code of the tokens of a view."""
    (row, column), (height, width) = view.origin, embedding_1CHW.shape[-2:]
    positions: Tensor = sam.prompt_encoder.get_dense_pe()
    return positions[:, :, row : row + height, column : column + width]


def _pixels(sam: Sam, view: View) -> Tensor:
    """Normalised pixels (3, H, W): a crop as it is, a whole picture padded to SAM's square."""
    image = torch.from_numpy(view.scene.image.copy()).to(sam.device).permute(2, 0, 1).float()
    if view.is_crop:
        normalised: Tensor = (image - sam.pixel_mean) / sam.pixel_std
        return normalised
    padded: Tensor = sam.preprocess(image)
    return padded


def _mean(values: Tensor) -> float:
    return float(values.mean()) if len(values) else 0.0  # a crop can lack a level


def _stacked(arrays: tuple[NDArray[np.float32], ...], device: torch.device) -> Tensor:
    return torch.from_numpy(np.stack(arrays)).to(device)
