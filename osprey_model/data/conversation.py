"""A conversation -> input ids and labels. Only answers are learned.

Learned are the tokens of every answer and its `</s>`. Not learned are the system prompt, user turns up to and including
`ASSISTANT:`, and image and region positions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from osprey_model.config import IGNORE_INDEX, IMAGE_TOKEN_ID
from osprey_model.inputs.prompts import TRAINING, Template, image_first
from osprey_model.inputs.tokenizer import IMAGE_TOKEN, OspreyTokenizer


class LabelMismatch(ValueError):
    """The tokens of a prompt are not the first tokens of prompt and answer together, so the labels would be wrong."""


class SampleTooLong(ValueError):
    """A conversation with its image needs more positions than the decoder has."""


@dataclass(frozen=True, slots=True)
class LabeledIds:
    """Parallel lists of one sample.

    Attributes:
        input_ids: -200 stands for the image.
        labels: -100 where a token is not learned.
        row_ids: of packed questions (`packing.py`): 0 in the prefix that they share, then 1, 2, ...; None: one
            conversation.
        weights: weight of each token in the loss; None: all tokens have the same.
    """

    input_ids: list[int]
    labels: list[int]
    row_ids: list[int] | None = None
    weights: list[float] | None = None

    def check_length(self, *, num_image_tokens: int, context: int) -> None:
        """Check the length after the splice.

        Args:
            num_image_tokens: positions that the image takes.
            context: positions of the decoder.

        Raises:
            SampleTooLong: the sample needs more positions than the decoder has.
        """
        ids = self.input_ids
        if self.row_ids is not None:  # every row's positions begin right behind the prefix, so the longest one counts
            longest = max(Counter(row for row in self.row_ids if row).items(), key=lambda row: row[1])[0]
            ids = [token_id for token_id, row in zip(ids, self.row_ids, strict=True) if row in (0, longest)]
        length = sum(num_image_tokens if token_id == IMAGE_TOKEN_ID else 1 for token_id in ids)
        if length > context:
            raise SampleTooLong(
                f"the conversation takes {length} positions with its image, the decoder has {context}; "
                "split it into shorter conversations"
            )


def encode_conversation(
    tokenizer: OspreyTokenizer, turns: Sequence[tuple[str, str]], *, template: Template = TRAINING
) -> LabeledIds:
    """Encode (message, answer) turns; the image-token rule is applied to every message.

    Raises:
        LabelMismatch: a message's tokens change when its answer follows.
        ValueError: there is no turn.
    """
    if not turns:
        raise ValueError("a conversation needs at least one turn of message and answer")
    ids, labels = [tokenizer.bos_token_id], [IGNORE_INDEX]
    for idx, (message, answer) in enumerate(turns):
        asked = template.opening() if idx == 0 else f"{template.user}: "
        asked += template.turn(image_first(message))
        # The end of an answer is a special token, so turns can be encoded one by one.
        asked_ids = tokenizer.encode_prompt(asked)[1:]
        turn_ids = tokenizer.encode_prompt(f"{asked} {answer}{template.end_of_answer}")[1:]
        if turn_ids[: len(asked_ids)] != asked_ids:
            raise LabelMismatch(
                f"turn {idx} is tokenised differently with its answer ({len(asked_ids)} prompt tokens); "
                f"prompt ends with {asked[-40:]!r}, answer begins with {answer[:40]!r}"
            )
        ids += turn_ids
        labels += [IGNORE_INDEX] * len(asked_ids) + turn_ids[len(asked_ids) :]
    # An image or region placeholder inside an answer cannot be predicted, so it is not learned.
    unlearnable = {tokenizer.mask_token_id, tokenizer.pos_token_id}
    labels = [IGNORE_INDEX if label < 0 or label in unlearnable else label for label in labels]
    return LabeledIds(ids, labels)


def encode_caption(tokenizer: OspreyTokenizer, caption: str) -> LabeledIds:
    """Encode a caption for stage 1 (template `plain`): the image, then its caption and a newline, which are learned."""
    ids = tokenizer.encode_prompt(f"{IMAGE_TOKEN}{caption}\n")
    start = 2  # BOS and the image
    return LabeledIds(ids, [IGNORE_INDEX] * start + ids[start:])


def turns_of(conversation: Sequence[dict[str, str]]) -> list[tuple[str, str]]:
    """Convert LLaVA's entries (`from` human or gpt, `value`) to turns; an answer at the beginning is left out.

    Raises:
        ValueError: the roles do not alternate, or a question has no answer.
    """
    entries = list(conversation)
    if entries and entries[0]["from"] != "human":
        entries = entries[1:]
    roles = [entry["from"] for entry in entries]
    if len(roles) % 2 or roles != ["human", "gpt"] * (len(roles) // 2):
        raise ValueError(f"expected human and gpt to alternate, ending with gpt; got {roles}")
    values = [entry["value"] for entry in entries]
    return list(zip(values[::2], values[1::2], strict=True))
