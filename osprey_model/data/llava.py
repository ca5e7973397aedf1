"""LLaVA's files: a JSON list of {image, conversations} about whole images, without regions.

Stage 1 learns the first answer as the image's caption (LLaVA's 595K pairs). With a chat template every turn is learned,
as in the training of Osprey-Chat with a part of LLaVA's instruction data.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from osprey_model.data.conversation import turns_of
from osprey_model.data.records import Draws, Record
from osprey_model.inputs.tokenizer import IMAGE_TOKEN


def conversation(entry: dict[str, Any], images: Path, _draws: Draws) -> Record | None:
    """Return the record of an entry, with the image placeholder in front of the first message; None without turns.

    Raises:
        ValueError: the roles do not alternate.
        KeyError: the entry has no image.
    """
    turns = turns_of(entry["conversations"])
    if not turns:
        return None
    (message, answer), *others = turns
    plain = message.replace(IMAGE_TOKEN, "").strip()
    return Record(((f"{IMAGE_TOKEN}\n{plain}", answer), *others), images / entry["image"], ())
