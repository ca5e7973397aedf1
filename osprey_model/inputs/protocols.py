"""What the released demo and evaluations ask and how they clean the answer, one row each.

`osprey.chat(image, masks, protocol.message())` asks; `protocol.clean(answer.raw)` is their text. The literal strings
are in `prompts.py`; product questions go through `Osprey.describe`, whose answers are cleaned without the colon rule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from osprey_model.inputs import prompts
from osprey_model.inputs.tokenizer import IMAGE_TOKEN, REGION_PLACEHOLDER


@dataclass(frozen=True, slots=True)
class Protocol:
    """One path of the released code.

    Attributes:
        prefix: what stands before the question.
        question: with `{region}`; None where the data brings the question.
        rule: decoded text, colon rule on or off -> text. The rule keeps what stands between the first and the
            second colon, which cuts answers such as "10:30"; only to compare with published numbers.
    """

    prefix: str
    question: str | None
    rule: Callable[[str, bool], str]

    def message(self, question: str | None = None) -> str:
        """The user's message; `{region}` or the data's `<region>` becomes the placeholder.

        Raises:
            ValueError: no question where the data brings it, or one where it is fixed.
        """
        if (question is None) == (self.question is None):
            expected = "the data's question" if self.question is None else f"none, it is always {self.question!r}"
            raise ValueError(f"expected {expected}, got {question!r}")
        text = self.question if question is None else question
        return self.prefix + str(text).replace("<region>", "{region}").replace("{region}", REGION_PLACEHOLDER)

    def clean(self, decoded: str, *, colon_rule: bool = False) -> str:
        """The answer as this path uses it."""
        return self.rule(decoded, colon_rule)


def _description(text: str, colon_rule: bool) -> str:
    return prompts.clean_description(text, colon_rule=colon_rule)


def _category(text: str, colon_rule: bool) -> str:
    return prompts.clean_category(text, colon_rule=colon_rule)


def _caption(text: str, colon_rule: bool) -> str:
    return prompts.clean_caption(text, colon_rule=colon_rule)


def _judged(text: str, colon_rule: bool) -> str:
    return prompts.between_colons(prompts.clean(text)) if colon_rule else prompts.clean(text)


def _plain(text: str, _colon_rule: bool) -> str:
    return prompts.clean(text)


def _lower_case(text: str, _colon_rule: bool) -> str:
    return text.lower()


PROTOCOLS: Mapping[str, Protocol] = {
    "demo_short": Protocol(prompts.PREFIX_D, prompts.SHORT_DESCRIPTION, _description),
    "demo_detailed": Protocol(prompts.PREFIX_D, prompts.DETAILED_DESCRIPTION, _description),
    "category": Protocol(prompts.PREFIX_P, prompts.CATEGORY, _category),  # LVIS and PACO
    "open_vocabulary": Protocol(prompts.PREFIX_X, prompts.OPEN_VOCABULARY, _plain),
    "refcocog_caption": Protocol(prompts.PREFIX_X, prompts.REFCOCOG_CAPTION, _caption),
    "gpt_description": Protocol(prompts.PREFIX_X, None, _judged),
    "ferret": Protocol(prompts.PREFIX_X, None, _plain),
    "pope": Protocol(f"{IMAGE_TOKEN}\n", None, _lower_case),
}
