"""One training step of the small SAM: a batch of scenes, many prompts on each.

The slots of the multimask output have fixed meanings here (sub-part, part, object). The ground truth of a drawn
scene has all three at every click, so the slots do not compete for the best mask as in SAM's own training (Segment
Anything, arXiv:2304.02643, section 3). Slot 0 learns from unambiguous prompts: boxes, and corrections of an earlier
mask.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

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

# P prompts, K masks per prompt (4), R regions of a scene, h w cells of the picture (the padding is cut off)

_IOU_WEIGHT = 2.0
_CUT_SHARE = 0.75  # of the views are decoded without the padding below the picture, which saves a quarter of the work
CELL_INPUT_PX = 2  # 4 cells per token of 8 px


@dataclass(frozen=True, slots=True)
class PromptPlan:
    """How many prompts a scene gets per step."""

    clicks: int
    background: int  # of the clicks
    boxes: int
    corrections: int  # one of them corrects a box's mask


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


@dataclass(frozen=True, slots=True)
class _ViewDecoder:
    """SAM's prompt encoder and mask decoder on the embedding of one view."""

    sam: Sam
    half: HalfCopy
    view: View
    embedding_1CHW: Tensor
    positions_1CHW: Tensor  # SAM's position code of the view's tokens

    @classmethod
    def of_view(cls, sam: Sam, half: HalfCopy, view: View, embedding_1CHW: Tensor) -> _ViewDecoder:
        """Give a view's embedding the positions that its tokens have in the whole picture."""
        (row, column), (height, width) = view.origin, embedding_1CHW.shape[-2:]
        positions: Tensor = sam.prompt_encoder.get_dense_pe()
        return cls(sam, half, view, embedding_1CHW, positions[:, :, row : row + height, column : column + width])

    @property
    def origin_px(self) -> NDArray[np.float32]:
        """The view's first pixel (x, y) in SAM's input."""
        stride_px = float(self.sam.image_encoder.patch_embed.proj.stride[0])
        return np.array(self.view.origin[::-1], np.float32) * np.float32(stride_px)

    def cut_to(self, num_rows: int) -> _ViewDecoder:
        """Drop the rows of tokens below the picture, which show only padding."""
        return replace(
            self,
            embedding_1CHW=self.embedding_1CHW[:, :, :num_rows],
            positions_1CHW=self.positions_1CHW[:, :, :num_rows],
        )

    def tokens(self, points: Tensor | None, labels: Tensor | None, boxes: Tensor | None) -> Tensor:
        """Encode prompts as tokens (P, N, C) in float32, because positions do not survive bfloat16."""
        clicks = None if points is None or labels is None else (points, labels)
        sparse: Tensor = self.sam.prompt_encoder(points=clicks, boxes=boxes, masks=None)[0]
        return sparse

    def decode(self, sparse_PNC: Tensor, dense: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Decode prompts to logits (P, 4, 4h, 4w) and predicted IoUs (P, 4), both in float32.

        Args:
            sparse_PNC: the prompts' tokens.
            dense: the encoded masks of an earlier round, (P, C, h, w); None: no prompt has one.
        """
        if dense is None:
            dense = self.sam.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
        logits, predicted = decode_prompts(
            self.half.decoder,
            (self.embedding_1CHW + dense).bfloat16(),
            self.positions_1CHW.bfloat16(),
            sparse_PNC.bfloat16(),
        )
        return logits.float(), predicted.float()


@dataclass(frozen=True, slots=True)
class _FirstRound:
    """The prompts of a view in pixels of SAM's input, and the region that each of them means.

    Attributes:
        clicks: single positive clicks.
        boxes: (N, 4).
        box_regions: (N,).
        coverage: (R, h, w), the soft masks of the view's regions.
    """

    clicks: Clicks
    boxes: NDArray[np.float32]
    box_regions: NDArray[np.int16]
    coverage: NDArray[np.float32]


def train_step(
    sam: Sam, half: HalfCopy, head: DenseHead, views: list[View], plan: PromptPlan, rng: np.random.Generator
) -> StepReport:
    """Add the gradients of a batch to the parameters and return the step's losses and IoUs."""
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
        decoder = _ViewDecoder.of_view(sam, half, view, leaf_BCHW[idx : idx + 1])
        loss, of_view = _view_loss(decoder, target, plan, rng)
        torch.autograd.backward(loss / len(views))
        _add_mean(report, of_view, len(views))
    assert leaf_BCHW.grad is not None  # every view has a dense loss
    torch.autograd.backward(embedding_BCHW, leaf_BCHW.grad.to(embedding_BCHW.dtype))
    half.push_gradients()
    return report


def _view_loss(
    decoder: _ViewDecoder, targets: Targets, plan: PromptPlan, rng: np.random.Generator
) -> tuple[Tensor, StepReport]:
    """Draw the prompts of one view, decode them and return their loss and its parts."""
    device = decoder.embedding_1CHW.device
    first = _first_round(decoder, targets, plan, rng)
    height, width = first.coverage.shape[1:]
    if rng.random() < _CUT_SHARE:
        decoder = decoder.cut_to(-(-height // CELLS_PER_TOKEN))
    points = torch.from_numpy(first.clicks.points).to(device)[:, None]
    sparse = torch.cat(
        [
            decoder.tokens(points, torch.ones(len(points), 1, device=device), None),
            decoder.tokens(None, None, torch.from_numpy(first.boxes).to(device)),
        ]
    )
    full_logits, predicted = decoder.decode(sparse)
    logits = full_logits[:, :, :height, :width]
    num_clicks = len(first.clicks.points)
    report = StepReport()

    # Clicks train slots 1..3. For a click on nothing the predicted IoU learns to be 0, whatever the mask.
    regions = torch.from_numpy(first.clicks.regions.astype(np.int64)).to(device)
    truth = torch.from_numpy(first.coverage).to(device)
    known = regions >= 0
    click_truth = truth[regions[known]]
    click_logits = logits[:num_clicks, 1:][known]
    losses = [mask_losses(click_logits, click_truth)]
    ious = true_iou(click_logits.detach(), click_truth)
    nothing = predicted[:num_clicks, 1:][regions == BACKGROUND]
    errors = [predicted[:num_clicks, 1:][known] - ious, nothing]
    level = torch.arange(LEVELS, device=device).expand_as(regions)[known]
    report.object_iou = _mean(ious[level == 2])
    report.part_iou = _mean(ious[level < 2])

    # Boxes train slot 0.
    box_truth = truth[torch.from_numpy(first.box_regions.astype(np.int64)).to(device)]
    losses.append(mask_losses(logits[num_clicks:, 0], box_truth))
    box_ious = true_iou(logits[num_clicks:, 0].detach(), box_truth)
    errors.append(predicted[num_clicks:, 0] - box_ious)

    # Corrections of the first round's masks train slot 0.
    corrected, second_logits, second_predicted = _corrections(
        decoder, first, full_logits.detach(), plan.corrections, rng
    )
    second_truth = truth[corrected]
    second_logits = second_logits[:, 0, :height, :width]
    losses.append(mask_losses(second_logits, second_truth))
    second_ious = true_iou(second_logits.detach(), second_truth)
    errors.append(second_predicted[:, 0] - second_ious)
    report.single_iou = float(torch.cat([box_ious, second_ious]).mean())

    mask = torch.cat(losses).mean()
    iou = torch.cat(errors).square().mean()
    report.mask, report.iou = float(mask.detach()), float(iou.detach())
    return mask + _IOU_WEIGHT * iou, report


def _first_round(decoder: _ViewDecoder, targets: Targets, plan: PromptPlan, rng: np.random.Generator) -> _FirstRound:
    """Draw the clicks and boxes of a view and move them to where the view lies in SAM's input."""
    scene, origin_px = decoder.view.scene, decoder.origin_px
    scale = scene.image.shape[1] / scene.region_map.shape[1]
    clicks = draw_clicks(scene, plan.clicks, plan.background, scale, rng)
    boxes, box_regions = draw_boxes(scene, plan.boxes, scale, rng)
    return _FirstRound(
        Clicks(clicks.points + origin_px, clicks.regions),
        boxes + np.tile(origin_px, 2),
        box_regions,
        targets.of(scene.members),
    )


def _corrections(
    decoder: _ViewDecoder, first: _FirstRound, full_logits_PKHW: Tensor, count: int, rng: np.random.Generator
) -> tuple[list[int], Tensor, Tensor]:
    """Correct `count` masks of the first round with a further click.

    The prompts of one call must have equally many tokens. So for each view, either all new clicks come together
    with the first prompt (with or without the earlier logits), or all of them come alone with the logits.

    Args:
        decoder: of the view.
        first: the prompts of the first round.
        full_logits_PKHW: their logits, padding included, without gradients.
        count: how many masks to correct; the last one is a box's.
        rng: draws masks, slots and clicks.

    Returns:
        The regions that are meant, and the logits and predicted IoUs of the second round.
    """
    device = decoder.embedding_1CHW.device
    points, click_regions, origin_px = first.clicks.points, first.clicks.regions, decoder.origin_px
    height, width = first.coverage.shape[1:]
    # Which masks: of random clicks a random slot whose region is known, then the first box.
    chosen: list[tuple[int, int, int]] = []  # prompt, slot, region
    for prompt in rng.permutation(len(points)).tolist():
        slots = np.flatnonzero(click_regions[prompt] >= 0)
        if len(slots) and len(chosen) < count - 1:
            slot = int(rng.choice(slots))
            chosen.append((prompt, slot + 1, int(click_regions[prompt, slot])))
    chosen.append((len(points), 0, int(first.box_regions[0])))
    # Their prompts: the new click, with or without what was prompted before.
    with_everything = rng.random() < 0.5
    sparse, use_logits = [], []
    for prompt, slot, region in chosen:
        mask = full_logits_PKHW[prompt, slot, :height, :width].cpu().numpy() > 0
        new_point, label = draw_correction(mask, first.coverage[region] > 0.5, CELL_INPUT_PX, rng)
        new_point = (new_point[0] + float(origin_px[0]), new_point[1] + float(origin_px[1]))
        is_box = prompt == len(points)
        news, labels = [new_point], [label]
        if with_everything and not is_box:
            news, labels = [tuple(points[prompt]), *news], [1, *labels]
        box = torch.from_numpy(first.boxes[:1]).to(device) if is_box and with_everything else None
        coords = torch.tensor([news], dtype=torch.float32, device=device)
        sparse.append(decoder.tokens(coords, torch.tensor([labels], device=device), box))
        use_logits.append(not with_everything or rng.random() < 0.5)
    # Their earlier logits as mask prompts, where they are used.
    prompts_P = torch.tensor([prompt for prompt, _, _ in chosen], device=device)
    slots_P = torch.tensor([slot for _, slot, _ in chosen], device=device)
    earlier = full_logits_PKHW[prompts_P, slots_P][:, None]
    # The prompt encoder's parts are called directly, because as a whole it takes only masks of the whole input.
    with_mask = decoder.sam.prompt_encoder.mask_downscaling(earlier)
    without = decoder.sam.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
    dense = torch.where(torch.tensor(use_logits, device=device)[:, None, None, None], with_mask, without)
    logits, predicted = decoder.decode(torch.cat(sparse), dense)
    return [region for _, _, region in chosen], logits, predicted


def _pixels(sam: Sam, view: View) -> Tensor:
    """Return normalised pixels (3, H, W): a crop as it is, a whole picture padded to SAM's square."""
    image = torch.from_numpy(view.scene.image.copy()).to(sam.device).permute(2, 0, 1).float()
    if view.is_crop:
        normalised: Tensor = (image - sam.pixel_mean) / sam.pixel_std
        return normalised
    padded: Tensor = sam.preprocess(image)
    return padded


def _add_mean(report: StepReport, of_view: StepReport, num_views: int) -> None:
    """Add a view's share of the means over a step; the dense loss is of the whole step already."""
    for field in fields(report):
        if field.name != "dense":
            mean = getattr(report, field.name) + getattr(of_view, field.name) / num_views
            setattr(report, field.name, mean)


def _mean(values: Tensor) -> float:
    return float(values.mean()) if len(values) else 0.0  # a crop can lack a level


def _stacked(arrays: tuple[NDArray[np.float32], ...], device: torch.device) -> Tensor:
    return torch.from_numpy(np.stack(arrays)).to(device)
