"""The literal prompts. A checkpoint works only with the wording of its training, misspellings included.

Here are templates, prefixes, question forms and the clean-up of answers, all as text. `tokenizer.py` turns the text
into ids; `osprey_model/modeling/splice.py` puts image and regions at the placeholders.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from osprey_model.inputs.tokenizer import IMAGE_TOKEN, REGION_PLACEHOLDER

QuestionForm = Literal["region", "part"]


@dataclass(frozen=True, slots=True)
class Template:
    """A two-separator chat: `{system} USER: {message} ASSISTANT: {answer}</s>USER: ...`."""

    system: str
    user: str = "USER"
    assistant: str = "ASSISTANT"
    end_of_answer: str = "</s>"

    def opening(self) -> str:
        """Return the text before the first message."""
        return f"{self.system} {self.user}: "

    def turn(self, message: str) -> str:
        """Render a user message up to the beginning of the answer; no space follows the colon."""
        return f"{message} {self.assistant}:"

    def prompt(self, turns: Sequence[tuple[str, str | None]]) -> str:
        """Render a conversation of (message, answer); a last answer of None is the one to generate."""
        text = f"{self.system} "
        for message, answer in turns:
            text += f"{self.user}: {self.turn(message)}"
            if answer is not None:
                text += f" {answer}{self.end_of_answer}"
        return text


_SYSTEM = (
    "A chat between a curious {who} and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the {who}'s questions."
)
# The released code uses different wordings in training and inference; both are kept.
INFERENCE = Template(_SYSTEM.format(who="human"))
TRAINING = Template(_SYSTEM.format(who="user"))

_OVERVIEW = "This provides an overview of the picture.\n"
PREFIX_P = f"{IMAGE_TOKEN}\n{_OVERVIEW}"  # Osprey-724K, VG, LVIS/PACO; every product question
PREFIX_D = f"{IMAGE_TOKEN}\n\n{_OVERVIEW}"  # the released demo: two newlines
PREFIX_X = f"{IMAGE_TOKEN}\n.\n{_OVERVIEW}"  # VCR, open vocabulary, RefCOCOg, GPT and Ferret: a line with a dot
# The part that all questions about one image share: system prompt, image tokens, overview line.
SHARED_OPENING = INFERENCE.opening() + PREFIX_P

SUFFIX_SHORT_FORM = " Answer the question using a single word or phrase."
SUFFIX_VG = " Answer the question using a short phrase."

# Messages of the released demo and evaluations, without their prefix.
SHORT_DESCRIPTION = "Please give me a short description of {region}. Using a short phrase."
DETAILED_DESCRIPTION = "Can you give me a detailed description of {region}?"
CATEGORY = "What is the category of {region}? Using only one word or phrase."
OPEN_VOCABULARY = "What is in {region}? Using a short phrase."
REFCOCOG_CAPTION = "Please give me a short description of {region}."


def image_first(message: str) -> str:
    """Apply the image-token rule of the released code: move `<image>` to the front, on a line of its own."""
    if IMAGE_TOKEN not in message:
        return message
    return f"{IMAGE_TOKEN}\n{message.replace(IMAGE_TOKEN, '').strip()}"


def region_question(text: str) -> str:
    """Replace `{region}` by the region's placeholder.

    Raises:
        ValueError: `{region}` does not occur exactly once. A region named twice would need its mask twice.
    """
    if text.count("{region}") != 1:
        raise ValueError(f"a region question names {{region}} exactly once, got {text.count('{region}')}: {text!r}")
    return text.replace("{region}", REGION_PLACEHOLDER)


def part_preamble(num_regions: int) -> str:
    """Return the introduction of part questions; its misspelling is that of the training data."""
    noun = "region" if num_regions == 1 else "regions"
    verb_and_count = f"Ther are {num_regions} part {noun}"
    regions = ",".join(f"region{idx + 1}{REGION_PLACEHOLDER}" for idx in range(num_regions))
    return f"{verb_and_count} in the picture: {regions}. "


def part_question(text: str, num_regions: int = 1) -> str:
    """Render a short-form question, which names its regions `region1`, `region2`, ...; `{region}` is `region1`."""
    return part_preamble(num_regions) + text.replace("{region}", "region1") + SUFFIX_SHORT_FORM


QUESTION_FORMS: dict[str, Callable[[str], str]] = {"region": region_question, "part": part_question}


def question_message(text: str, form: QuestionForm) -> str:
    """Render a question as the message that follows a prefix.

    Raises:
        ValueError: the form is unknown, or the text does not fit it.
    """
    if form not in QUESTION_FORMS:
        raise ValueError(f"unknown question form {form!r}; known: {', '.join(QUESTION_FORMS)}")
    if re.search(r"<(image|mask|pos|unk|/?s)>", text):
        raise ValueError(f"a question may not hold special tokens; write {{region}} for the region: {text!r}")
    return QUESTION_FORMS[form](text)


def clean(text: str) -> str:
    """Strip a decoded answer and remove a trailing `</s>`: the first step of every clean-up."""
    return text.strip().removesuffix("</s>").strip()


def clean_description(text: str, *, colon_rule: bool = False) -> str:
    """Clean a description: remove repeated sentences, and end the last one with a dot.

    Args:
        text: decoded answer.
        colon_rule: keep only the text between the first and the second colon, as the released demo does. This cuts
            answers such as "10:30", so it is off by default.
    """
    text = clean(text)
    if colon_rule:
        return _released_demo(text)
    text = drop_repeats(text)
    return text if not text or text[-1] in ".!?" else f"{text}."


def drop_repeats(text: str) -> str:
    """Cut a text at the first sentence that has occurred before."""
    sentences: list[str] = []
    for sentence in re.split(r"(?<=[.!?])\s+", text):
        if sentence in sentences:
            break
        sentences.append(sentence)
    return " ".join(sentences)


def clean_category(text: str, *, colon_rule: bool = False) -> str:
    """Clean a category for LVIS and PACO: dots, colons and commas become spaces, as their metric expects."""
    return re.sub(r"[.:,]", " ", between_colons(clean(text)) if colon_rule else clean(text))


def clean_caption(text: str, *, colon_rule: bool = False) -> str:
    """Clean a caption for RefCOCOg: one sentence per line."""
    return (between_colons(clean(text)) if colon_rule else clean(text)).replace(".", ".\n")


def between_colons(text: str) -> str:
    """Apply the released colon rule: return the text between the first and the second colon."""
    return text.split(":")[1] if ":" in text else text


def _released_demo(text: str) -> str:
    kept: list[str] = []
    for sentence in between_colons(text).split("."):
        if sentence in kept:  # compared with its leading space, so some repeats pass
            break
        kept.append(sentence)
    return "".join(f"{sentence}." for sentence in kept if sentence)
