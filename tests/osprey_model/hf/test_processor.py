"""`model.generate(**processor(...))` against the engine, batches against single samples, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from osprey_model.engine.engine import Osprey
from osprey_model.hf.processor import OspreyProcessor
from osprey_model.inputs.images import BadImage
from osprey_model.inputs.masks import BadMask, EmptyMask
from osprey_model.inputs.messages import BadMessages
from osprey_model.modeling.splice import PlaceholderMismatch

NANO = Path(__file__).parents[3] / "demo" / "checkpoints" / "osprey-nano"
DETAILED = "Can you give me a detailed description of {region}?"
LIMIT = 48


@pytest.fixture(scope="module")
def osprey() -> Osprey:
    return Osprey.from_pretrained(NANO)


@pytest.fixture(scope="module")
def processor() -> OspreyProcessor:
    return OspreyProcessor.from_pretrained(NANO)


@pytest.fixture(scope="module")
def image() -> Image.Image:
    drawn = Image.new("RGB", (120, 100), (90, 160, 220))
    drawn.paste((200, 30, 30), (30, 20, 70, 60))
    drawn.paste((240, 220, 40), (80, 50, 115, 95))
    return drawn


@pytest.fixture(scope="module")
def masks() -> list[np.ndarray]:
    first, second = np.zeros((100, 120), bool), np.zeros((200, 240), bool)
    first[20:60, 30:70] = True
    second[100:190, 160:230] = True
    return [first, second]


def test_generate_equals_the_engine(
    osprey: Osprey, processor: OspreyProcessor, image: Image.Image, masks: list[np.ndarray]
) -> None:
    """One region, regions of different mask sizes, several turns, image only and text only give the engine's text."""
    conversations: list[tuple[Any, list[Any], Any]] = [
        (image, masks[:1], DETAILED),
        (image, masks[1:], DETAILED),
        (image, masks, "What is {region} beside {region}?"),
        (image, masks[:1], [("What is {region}?", "A bus."), ("What is its color?", None)]),
        (image, [], "What is in the picture?"),
        (None, [], "What is a boat?"),
    ]
    texts = set()
    for given, regions, messages in conversations:
        inputs = processor(given, regions, messages)
        (text,) = processor.answers(osprey.model.generate(**inputs, max_new_tokens=LIMIT), inputs)
        assert text == osprey.chat(given, regions, messages, max_new_tokens=LIMIT).text
        texts.add(text)
    assert len(texts) >= 4, "answers that are all the same would prove nothing"


def test_a_batch_equals_its_samples(
    osprey: Osprey, processor: OspreyProcessor, image: Image.Image, masks: list[np.ndarray]
) -> None:
    """A batch of samples of unequal length, one without image, gives the answers of the single samples."""
    samples = [(image, masks[:1], DETAILED), (None, None, "What is a boat?"), (image, masks, "{region} or {region}?")]
    batch = processor(*map(list, zip(*samples, strict=True)))
    generated = osprey.model.generate(**batch, max_new_tokens=LIMIT)
    alone = []
    for sample in samples:
        inputs = processor(*sample)
        alone += processor.answers(osprey.model.generate(**inputs, max_new_tokens=LIMIT), inputs)
    assert processor.answers(generated, batch) == alone
    assert torch.equal(generated[:, : batch["input_ids"].shape[1]], batch["input_ids"])


def test_beams_and_dicts(
    osprey: Osprey, processor: OspreyProcessor, image: Image.Image, masks: list[np.ndarray]
) -> None:
    """With beams, several sequences and dict outputs, every sequence begins with the prompt."""
    inputs = processor(image, masks[:1], DETAILED)
    output = osprey.model.generate(
        **inputs, max_new_tokens=6, num_beams=3, num_return_sequences=2, return_dict_in_generate=True
    )
    assert output.sequences.shape == (2, inputs["input_ids"].shape[1] + 6)
    assert all(processor.answers(output.sequences, inputs))


def test_forward_takes_the_same_inputs(
    osprey: Osprey, processor: OspreyProcessor, image: Image.Image, masks: list[np.ndarray]
) -> None:
    """The first greedy token is the arg-max of the last logits."""
    inputs = processor(image, masks[:1], DETAILED)
    with torch.inference_mode():
        logits = osprey.model(**inputs).logits
    generated = osprey.model.generate(**inputs, max_new_tokens=1)
    assert logits[0, -1].argmax() == generated[0, -1]


def test_saved_it_reads_back_the_same(
    processor: OspreyProcessor, image: Image.Image, masks: list[np.ndarray], tmp_path: Path
) -> None:
    """A saved processor can be read without a model in its folder."""
    processor.save_pretrained(tmp_path)
    loaded = OspreyProcessor.from_pretrained(tmp_path)
    assert loaded.image_size == processor.image_size == 256
    for name, value in processor(image, masks[:1], DETAILED).items():
        again = loaded(image, masks[:1], DETAILED)[name]
        assert all(torch.equal(left, right) for left, right in zip(value, again, strict=True)), name


def test_a_rendered_prompt_is_taken_as_it_is(
    processor: OspreyProcessor, image: Image.Image, masks: list[np.ndarray]
) -> None:
    """Template and call in two steps give the inputs of one step."""
    messages = [{"role": "user", "content": DETAILED}]
    prompt = processor.apply_chat_template(messages)
    assert prompt.endswith("description of <mask><pos>? ASSISTANT:")
    rendered, direct = processor(image, masks[:1], prompt), processor(image, masks[:1], messages)
    assert torch.equal(rendered["input_ids"], direct["input_ids"])


def test_decode_shows_the_image(processor: OspreyProcessor, image: Image.Image) -> None:
    """Ids with -200, which is not in the vocabulary, can be decoded."""
    ids = processor(image, None, "What is this?")["input_ids"][0]
    assert "<image>" in processor.decode(ids, skip_special_tokens=False)
    assert "<image>" not in processor.batch_decode([ids])[0]
    assert processor.decode(ids).endswith("What is this? ASSISTANT:")


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"masks": []}, PlaceholderMismatch, r"sample 0: 1 <mask> placeholders but 0 masks"),
        ({"masks": [np.ones((4, 4)), np.ones((4, 4))]}, PlaceholderMismatch, "1 <mask> placeholders but 2 masks"),
        ({"images": None}, PlaceholderMismatch, "sample 0: expected an image with one <image>"),
        ({"text": None}, PlaceholderMismatch, "expected text"),
        ({"masks": [np.zeros((4, 4))]}, EmptyMask, "sample 0, mask 0: .* empty"),
        ({"masks": [np.full((4, 4), 7)]}, BadMask, "sample 0, mask 0: expected a mask of 0 and 1"),
        ({"images": np.zeros((2, 2, 2, 2))}, BadImage, r"got shape \(2, 2, 2, 2\)"),
        ({"text": [{"role": "tool", "content": "{region}"}]}, BadMessages, "unknown role 'tool'"),
        ({"text": ["a {region}", "b {region}"]}, PlaceholderMismatch, "expected a list of 2 images, one per text"),
    ],
)
def test_what_does_not_fit_is_named(
    arguments: dict[str, Any], error: type[Exception], said: str, processor: OspreyProcessor, image: Image.Image
) -> None:
    """Each error names the sample and what to do."""
    given = {"images": image, "masks": [np.ones((4, 4))], "text": "What is {region}?", **arguments}
    with pytest.raises(error, match=said):
        processor(**given)
