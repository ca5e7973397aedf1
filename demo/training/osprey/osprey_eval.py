"""Measure how well osprey-nano answers on unseen scenes: greedy answers, checked by the scene grammar.

The measures are those of `make eval-demo`, but on true (or irregular) masks and without the service, so that the
evaluation is fast enough to run during training.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from demo.scenes import Scene, make_scene
from demo.scenes.grammar import detailed_facts, is_short_description
from demo.training.osprey.features import FeatureCache
from demo.training.osprey.osprey_questions import (
    CATEGORY,
    COLOR,
    DETAILED,
    MATERIAL,
    PART,
    SHORT,
    Area,
    QuestionItem,
    areas_of,
    owner_of,
    part_name,
)
from demo.training.osprey.packing import PromptCoder, QuestionRows, embed_rows, pack, run_prefix, spread
from label_config.schema import FieldQuestion
from osprey_model.inputs.prompts import question_message
from osprey_model.modeling.osprey import OspreyForCausalLM

FIELDS: dict[str, FieldQuestion] = {
    "category": CATEGORY,
    "part": PART,
    "color": COLOR,
    "material": MATERIAL,
    "short": SHORT,
    "detailed": DETAILED,
}
_MAX_NEW_TOKENS = {"short": 24, "detailed": 72}
_PARTS_PER_SCENE = 6


def evaluate(
    model: OspreyForCausalLM, coder: PromptCoder, features: FeatureCache, count: int, *, wavering: bool = False
) -> dict[str, float]:
    """Compute the share of right answers on the first `count` scenes of `features`, by measure.

    The category is asked of objects only.

    Args:
        model: the model.
        coder: encodes its questions.
        features: of scenes that were not trained on.
        count: number of scenes.
        wavering: answer on one of the two mask variants at random instead of the true masks.
    """
    answerer = _SceneModel(model, coder, features)
    generator = np.random.default_rng(0) if wavering else None
    picks = np.random.default_rng(1)
    right: dict[str, list[bool]] = defaultdict(list)
    for idx in range(count):
        scene = make_scene(features.records[idx].seed)
        areas = areas_of(scene)
        objects, parts = list(range(len(scene.objects))), np.arange(len(scene.objects), len(areas))
        chosen = [*objects, *picks.permutation(parts)[:_PARTS_PER_SCENE].tolist()]
        for field, question in FIELDS.items():
            asked = objects if field == "category" else chosen
            answers = answerer.answer(idx, question, asked, generator)
            for region, text in zip(asked, answers, strict=True):
                size = "object" if region in objects else "part"
                for measure, verdict in judge(scene, areas[region], field, text).items():
                    right[f"{measure} {size}"].append(verdict)
    return {name: float(np.mean(verdicts)) for name, verdicts in sorted(right.items())}


def judge(scene: Scene, area: Area, field: str, text: str) -> dict[str, bool]:
    """Return which measures an answer meets."""
    if field == "detailed":
        facts = detailed_facts(scene, area, text)
        needed = [facts[name] for name in ("category", "color", "relation")]
        return {"detailed": all(needed), "detailed relation": facts["relation"]}
    if field == "short":
        return {"short": is_short_description(scene, area, text)}
    truth = {
        "category": owner_of(scene, area).category,
        "part": part_name(area),
        "color": area.color,
        "material": area.material,
    }[field]
    return {field: text.strip().lower() == truth}


@dataclass(frozen=True, slots=True)
class _SceneModel:
    """A model with the cached features of the scenes that it is asked about."""

    model: OspreyForCausalLM
    coder: PromptCoder
    features: FeatureCache

    def answer(
        self, scene: int, question: FieldQuestion, regions: Sequence[int], generator: np.random.Generator | None
    ) -> list[str]:
        """Answer one question on several regions of one scene, greedily; see `pack` for `generator`."""
        message = question_message(question.text, question.form)
        items = [(scene, QuestionItem("", message, "", (region,))) for region in regions]
        rows = pack(self.features, items, [scene], self.coder, generator, with_answers=False)
        tokens = torch.from_numpy(self.features.image_tokens_NTC[[scene]]).float()
        device = next(self.model.parameters()).device
        limit = max((steps for name, steps in _MAX_NEW_TOKENS.items() if FIELDS[name] is question), default=12)
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
            ids_KN = _decode_greedily(self.model, self.coder, rows.to(device), tokens.to(device), limit)
        eos = self.coder.tokenizer.eos_token_id
        texts = []
        for row in ids_KN.tolist():
            texts.append(self.coder.tokenizer.decode(row[: row.index(eos)] if eos in row else row))
        return texts


def _decode_greedily(
    model: OspreyForCausalLM, coder: PromptCoder, rows: QuestionRows, image_tokens_1TC: torch.Tensor, limit: int
) -> torch.Tensor:
    """Decode ids (K, at most `limit`) of rows with one question on one region each, so that none is padded."""
    assert int(rows.lengths_K.min()) == int(rows.lengths_K.max()), "rows of one question have one length"
    cache = spread(run_prefix(model, coder, image_tokens_1TC), rows.image_K)
    embeds_KSD = embed_rows(model, rows)
    generated = []
    finished_K = torch.zeros(len(embeds_KSD), dtype=torch.bool, device=embeds_KSD.device)
    for _ in range(limit):
        hidden_KSD = model.model(inputs_embeds=embeds_KSD, past_key_values=cache, use_cache=True).last_hidden_state
        next_K = model.lm_head(hidden_KSD[:, -1]).argmax(-1)
        generated.append(next_K)
        finished_K |= next_K == coder.tokenizer.eos_token_id
        if bool(finished_K.all()):
            break
        embeds_KSD = model.model.embed_tokens(next_K)[:, None]
    return torch.stack(generated, dim=1)
