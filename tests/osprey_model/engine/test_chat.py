"""`Osprey.chat` against the reference's own greedy answers, which come from other prefixes than the engine's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from osprey_model.engine.engine import Osprey
from osprey_model.prompts import INFERENCE, clean, drop_repeats
from osprey_model.splice import PlaceholderMismatch


def turns_of_prompt(prompt: str) -> list[tuple[str, str | None]]:
    """A rendered prompt back into its turns."""
    turns: list[tuple[str, str | None]] = []
    for part in prompt.removeprefix(f"{INFERENCE.system} ").split("</s>"):
        message, answer = part.removeprefix("USER: ").rsplit(" ASSISTANT:", 1)
        turns.append((message, answer.strip() or None))
    return turns


@pytest.mark.parametrize(
    "name",
    ["short", "category_tiny_mask", "whatis_empty_mask", "multi_region", "multi_turn", "image_only", "text_only"],
)
def test_the_references_greedy_answers(name: str, osprey: Osprey, golden_dir: Path) -> None:
    """Several regions, several turns, no region, no image: the shared prefix is cut where a prompt differs."""
    facts = json.loads((golden_dir / "cases" / "cases.json").read_text())[name]
    tensors = load_file(golden_dir / "cases" / f"{name}.safetensors")
    image = Image.open(golden_dir / facts["image"]) if facts.get("image") else None
    answer = osprey.chat(image, list(tensors.get("masks", [])), turns_of_prompt(facts["prompt"]), max_new_tokens=16)
    expected = osprey.tokenizer.decode(tensors["generated_ids"].flatten().tolist())
    assert answer.text == drop_repeats(clean(expected))
    assert len(answer.token_logprobs) == tensors["generated_ids"].numel()


def test_prefix_p_is_put_before_a_bare_message(osprey: Osprey, image: Image.Image, masks: list[np.ndarray]) -> None:
    """A message without <image> is asked as the product asks."""
    bare = osprey.chat(image, masks[:1], [("What is <mask><pos>?", None)], max_new_tokens=4)
    written = "<image>\nThis provides an overview of the picture.\nWhat is <mask><pos>?"
    assert bare == osprey.chat(image, masks[:1], [(written, None)], max_new_tokens=4)


def test_what_does_not_fit_is_named(osprey: Osprey, image: Image.Image, masks: list[np.ndarray]) -> None:
    """Counts of masks, masks without an image, a second image, an answered conversation."""
    with pytest.raises(PlaceholderMismatch, match="1 <mask> placeholders but 2 masks"):
        osprey.chat(image, masks[:2], [("What is <mask><pos>?", None)])
    with pytest.raises(PlaceholderMismatch, match="without an image"):
        osprey.chat(None, masks[:1], [("What is <mask><pos>?", None)])
    with pytest.raises(PlaceholderMismatch, match="expected one <image>"):
        osprey.chat(image, [], [("<image> <image>", None)])
    with pytest.raises(ValueError, match="last answer is None"):
        osprey.chat(image, [], [("What?", "That.")])
