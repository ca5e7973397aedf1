"""Stages 1 to 3 in one: projector, mask extractor and decoder are trained together, the tower stays frozen.

The reference trains them one after another because its decoder is a trained Vicuna. Here the decoder starts from
random weights, so all three are trained together, on packed questions (`packing.py`) over cached features.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from demo.training.osprey.features import FeatureCache
from demo.training.osprey.osprey_eval import evaluate
from demo.training.osprey.osprey_loop import Average, Budget, Optimizers, load_state, save_state
from demo.training.osprey.osprey_questions import QuestionItem
from demo.training.osprey.packing import PromptCoder, QuestionRows, answer_losses, pack, run_prefix
from osprey_model.modeling.osprey import OspreyForCausalLM

# How many questions of each kind one visit to an image asks (fewer where the image has fewer).
QUOTAS: dict[str, int] = {
    "category object": 1,
    "category part": 1,
    "part object": 1,
    "part part": 3,
    "color object": 1,
    "color part": 2,
    "material object": 1,
    "material part": 1,
    "short object": 2,
    "short part": 2,
    "detailed object": 4,
    "detailed part": 2,
    "place": 1,
    "next to": 3,
    "short form": 1,
    "relation check": 1,
    "positive negative": 1,
    "picture": 1,
}
LONG_KINDS = ("detailed object", "detailed part", "relation check")  # in a group apart, to save padding


_IMAGES_PER_STEP, _LEARNING_RATE = 4, 4e-3
_SAVE_EVERY_S = 300
_EVALUATED_SCENES = 12


@dataclass(frozen=True, slots=True)
class DecoderBatch:
    """B images and their questions, in groups of rows of similar length, with the kind of every row."""

    image_tokens_BTC: Tensor
    groups: tuple[tuple[QuestionRows, tuple[str, ...]], ...]


class DecoderData:
    """Random visits to the images of a feature cache."""

    def __init__(self, features: FeatureCache, coder: PromptCoder) -> None:
        self.features, self.coder = features, coder
        self.by_kind: list[dict[str, list[QuestionItem]]] = []
        for record in features.records:
            kinds: dict[str, list[QuestionItem]] = defaultdict(list)
            for item in record.questions:
                kinds[item.kind].append(item)
            self.by_kind.append(dict(kinds))

    def batches(self, images_per_step: int, generator: np.random.Generator) -> Iterator[DecoderBatch]:
        """Yield shuffled passes over the images without end; questions are drawn anew on every visit."""
        images_per_step = min(images_per_step, len(self.by_kind))
        while True:
            order = generator.permutation(len(self.by_kind))
            for start in range(0, len(order) - images_per_step + 1, images_per_step):
                yield self.batch(order[start : start + images_per_step].tolist(), generator)

    def batch(self, images: list[int], generator: np.random.Generator) -> DecoderBatch:
        """Draw the questions of one visit to each of `images`."""
        asked = [(image, item) for image in images for item in self._draw(image, generator)]
        groups = []
        for want_long in (False, True):
            group = [(image, item) for image, item in asked if (item.kind in LONG_KINDS) == want_long]
            rows = pack(self.features, group, images, self.coder, generator)
            groups.append((rows, tuple(item.kind for _, item in group)))
        tokens = torch.from_numpy(self.features.image_tokens_NTC[images]).float()
        return DecoderBatch(tokens, tuple(groups))

    def _draw(self, image: int, generator: np.random.Generator) -> Iterator[QuestionItem]:
        """Draw the questions of one visit to an image, by the quotas of their kinds."""
        for kind, quota in QUOTAS.items():
            items = self.by_kind[image].get(kind, [])
            for number in generator.permutation(len(items))[:quota]:
                yield items[number]


class Progress:
    """Running loss, and share of rows with every token right, per kind of question."""

    def __init__(self, memory: float = 0.98) -> None:
        self.memory = memory
        self.values: dict[str, list[float]] = {}

    def update(self, kinds: tuple[str, ...], losses_L: Tensor, rows_L: Tensor, right_L: Tensor) -> None:
        """Add one group of rows."""
        loss_K = torch.zeros(len(kinds)).index_add(0, rows_L, losses_L.detach().float())
        wrong_K = torch.zeros(len(kinds)).index_add(0, rows_L, (~right_L).float())
        for kind in set(kinds):
            own = torch.tensor([name == kind for name in kinds])
            fresh = [loss_K[own].mean().item(), (wrong_K[own] == 0).float().mean().item()]
            kept = self.values.setdefault(kind, fresh)
            self.values[kind] = [self.memory * a + (1 - self.memory) * b for a, b in zip(kept, fresh, strict=True)]

    def line(self) -> str:
        """Return all kinds in one line: loss per question / share right."""
        return "  ".join(f"{kind} {loss:.2f}/{100 * right:.0f}%" for kind, (loss, right) in sorted(self.values.items()))


def batch_loss(model: OspreyForCausalLM, coder: PromptCoder, batch: DecoderBatch, progress: Progress) -> Tensor:
    """Compute the weighted mean cross-entropy of all answer tokens."""
    device = next(model.parameters()).device
    prefix = run_prefix(model, coder, batch.image_tokens_BTC.to(device))
    sums = []
    for rows, kinds in batch.groups:
        losses_L, weights_L, rows_L, right_L = answer_losses(model, prefix, rows.to(device))
        progress.update(kinds, losses_L.cpu(), rows_L.cpu(), right_L.cpu())
        sums.append(torch.stack([(losses_L * weights_L).sum(), weights_L.sum()]))
    weighted, weight = torch.stack(sums).sum(0)
    loss: Tensor = weighted / weight
    return loss


def trained_parameters(model: OspreyForCausalLM) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """Freeze the tower and return all other parameters by name."""
    model.model.vision_tower.requires_grad_(False)
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)


def train_decoder(
    model: OspreyForCausalLM,
    coder: PromptCoder,
    features: FeatureCache,
    held_out: FeatureCache,
    state_path: Path,
    minutes: float,
) -> Iterator[tuple[float, str]]:
    """Train everything except the tower, in place; yield progress (0 to 1) and lines for a log.

    Resumes from `state_path`. Every 5 minutes it saves there and evaluates some unseen scenes.
    """
    optimizers = Optimizers(trained_parameters(model), _LEARNING_RATE, adam_only=("embed_tokens", "lm_head"))
    average, budget, step = Average(model, decay=0.995), Budget(minutes), 0
    if state := load_state(state_path):
        model.load_state_dict(state["model"], strict=False)
        optimizers.load(state["optimizers"])
        average.values, average.steps = state["average"], state["step"]
        budget.used_s, step = state["used_s"], state["step"]
    device = next(model.parameters()).device
    # With few heads, short rows and a mask, plain attention has a faster backward pass on a CPU than the fused kernel.
    if device.type == "cpu":
        model.set_attn_implementation("eager")
    batches = DecoderData(features, coder).batches(_IMAGES_PER_STEP, np.random.default_rng((1, step)))
    progress, saved_at_s = Progress(), budget.elapsed_s
    while budget.progress < 1:
        batch = next(batches)
        with torch.autocast(device.type, torch.bfloat16):
            loss = batch_loss(model, coder, batch, progress)
        torch.autograd.backward(loss)
        optimizers.step(budget.rate)
        average.update(model)
        step += 1
        if step % 20 == 0:
            yield budget.progress, f"decoder step {step} {budget.elapsed_s:.0f}s: {progress.line()}"
        if budget.elapsed_s - saved_at_s > _SAVE_EVERY_S or budget.progress >= 1:
            save_state(
                state_path,
                model={name: value for name, value in model.state_dict().items() if "vision_tower" not in name},
                optimizers=optimizers.state(),
                average=average.values,
                step=step,
                used_s=budget.elapsed_s,
            )
            average.swap(model)
            scores = evaluate(model, coder, held_out, _EVALUATED_SCENES)
            average.swap(model)
            saved_at_s = budget.elapsed_s
            shares = " ".join(f"{name} {100 * value:.1f}%" for name, value in scores.items())
            yield budget.progress, f"decoder step {step}, unseen scenes: {shares}"
    average.swap(model)
