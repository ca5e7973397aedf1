"""The prompts of the released demo and evaluations, and how each cleans its answer. Used by evaluation.

`osprey.chat(image, masks, protocol.message())` asks the question; `protocol.clean(answer.raw)` is the text that the
released code would use. The literal strings are in `prompts.py`. The product asks through `Osprey.describe`, whose
answers are cleaned without the colon rule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from osprey_model.inputs import prompts
from osprey_model.inputs.tokenizer import IMAGE_TOKEN, REGION_PLACEHOLDER


@dataclass(frozen=True, slots=True)
class Protocol:
    """The question of one script of the released code, and its clean-up of the answer.

    Attributes:
        prefix: text before the question.
        question: contains `{region}`; None if the data set has the questions.
        rule: (decoded text, colon rule on or off) -> text. The colon rule keeps only the text between the first and the
            second colon, which cuts answers such as "10:30". It is needed only to compare with published numbers.
    """

    prefix: str
    question: str | None
    rule: Callable[[str, bool], str]

    def message(self, question: str | None = None) -> str:
        """Render the user's message; `{region}`, or the data set's `<region>`, becomes the placeholder.

        Args:
            question: required if the data set has the questions, else None.

        Raises:
            ValueError: the question is missing, or it was given although it is fixed.
        """
        if (question is None) == (self.question is None):
            expected = "the data's question" if self.question is None else f"none, it is always {self.question!r}"
            raise ValueError(f"expected {expected}, got {question!r}")
        text = self.question if question is None else question
        return self.prefix + str(text).replace("<region>", "{region}").replace("{region}", REGION_PLACEHOLDER)

    def clean(self, decoded: str, *, colon_rule: bool = False) -> str:
        """Clean an answer as this script does."""
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
