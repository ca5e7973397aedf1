"""`Osprey.chat` against the reference's greedy answers, whose prompts have other prefixes than the engine's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from osprey_model.engine.decoding.choices import BadChoices
from osprey_model.engine.engine import Osprey
from osprey_model.engine.requests import PromptTooLong
from osprey_model.inputs.masks import BadMask
from osprey_model.inputs.messages import BadMessages
from osprey_model.inputs.prompts import INFERENCE, clean, drop_repeats
from osprey_model.modeling.splice import PlaceholderMismatch


def turns_of_prompt(prompt: str) -> list[tuple[str, str | None]]:
    """Parse a rendered prompt into its turns."""
    turns: list[tuple[str, str | None]] = []
    for part in prompt.removeprefix(f"{INFERENCE.system} ").split("</s>"):
        message, answer = part.removeprefix("USER: ").rsplit(" ASSISTANT:", 1)
        turns.append((message, answer.strip() or None))
    return turns


@pytest.mark.parametrize(
    "name",
    ["short", "category_tiny_mask", "multi_region", "multi_turn", "image_only", "text_only"],
)
def test_the_references_greedy_answers(name: str, osprey: Osprey, golden_dir: Path) -> None:
    """Conversations with several regions, several turns, no region or no image give the reference's greedy answers."""
    facts = json.loads((golden_dir / "cases" / "cases.json").read_text())[name]
    tensors = load_file(golden_dir / "cases" / f"{name}.safetensors")
    image = Image.open(golden_dir / facts["image"]) if facts.get("image") else None
    answer = osprey.chat(image, list(tensors.get("masks", [])), turns_of_prompt(facts["prompt"]), max_new_tokens=16)
    expected = osprey.tokenizer.decode(tensors["generated_ids"].flatten().tolist())
    assert answer.text == drop_repeats(clean(expected))
    assert answer.raw == expected
    assert len(answer.token_logprobs) == tensors["generated_ids"].numel()
    ended = tensors["generated_ids"].flatten()[-1].item() == osprey.tokenizer.eos_token_id
    assert ("cut" in [warning.kind for warning in answer.warnings]) != ended


def test_prefix_p_is_put_before_a_bare_message(osprey: Osprey, image: Image.Image, masks: list[np.ndarray]) -> None:
    """A message without <image> gets prefix P, as the product's questions do."""
    bare = osprey.chat(image, masks[:1], [("What is <mask><pos>?", None)], max_new_tokens=4)
    written = "<image>\nThis provides an overview of the picture.\nWhat is <mask><pos>?"
    assert bare == osprey.chat(image, masks[:1], [(written, None)], max_new_tokens=4)


def test_conversations_of_every_form(osprey: Osprey, image: Image.Image, masks: list[np.ndarray]) -> None:
    """A string, pairs and role dicts give equal answers; {region} stands for the placeholder."""
    expected = osprey.chat(image, masks[:1], [("What is <mask><pos>?", None)], max_new_tokens=4)
    assert osprey.chat(image, masks[:1], "What is {region}?", max_new_tokens=4) == expected
    roles = [{"role": "user", "content": "What is {region}?"}]
    assert osprey.chat(image, masks[:1], roles, max_new_tokens=4) == expected
    later = [*roles, {"role": "assistant", "content": "A hat."}, {"role": "user", "content": "Why?"}]
    pairs = [("What is <mask><pos>?", "A hat."), ("Why?", None)]
    assert osprey.chat(image, masks[:1], later, max_new_tokens=4) == osprey.chat(
        image, masks[:1], pairs, max_new_tokens=4
    )


def test_an_answer_from_a_list(osprey: Osprey, image: Image.Image) -> None:
    """In a chat about the whole image, an answer can be chosen from a list."""
    answer = osprey.chat(image, [], "Is it day or night?", choices=("day", "night"))
    assert answer.text in ("day", "night")
    assert answer.confidence + answer.alternatives[0].probability == pytest.approx(1.0, abs=1e-4)


def test_what_does_not_fit_is_named(osprey: Osprey, image: Image.Image, masks: list[np.ndarray]) -> None:
    """The error names wrong numbers of masks, no or a second image, an answered conversation and a full context."""
    with pytest.raises(PlaceholderMismatch, match="1 <mask> placeholders but 2 masks"):
        osprey.chat(image, masks[:2], [("What is <mask><pos>?", None)])
    with pytest.raises(PlaceholderMismatch, match="2 <mask> placeholders but 1 masks"):
        osprey.chat(image, masks[:1], "What is {region} beside {region}?")
    with pytest.raises(PlaceholderMismatch, match="without an image"):
        osprey.chat(None, masks[:1], [("What is <mask><pos>?", None)])
    with pytest.raises(PlaceholderMismatch, match="expected one <image>"):
        osprey.chat(image, [], [("<image> <image>", None)])
    with pytest.raises(BadMessages, match="last answer is None"):
        osprey.chat(image, [], [("What?", "That.")])
    with pytest.raises(BadChoices, match="got the string 'boat'"):
        osprey.chat(image, [], "What?", choices="boat")
    with pytest.raises(PromptTooLong, match="shorten the question"):
        osprey.chat(image, [], "why " * 3000)
    with pytest.raises(BadMask, match="mask 1: expected a mask of 0 and 1"):
        osprey.chat(image, [masks[0], np.full((4, 4), 255)], "What are {region} and {region}?")
