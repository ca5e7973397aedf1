"""osprey-nano's tokenizer: a small SentencePiece model in LLaMA's layout, trained on the demo world's texts.

BPE with byte fallback, `<unk>` 0, `<s>` 1, `</s>` 2, and no pre-splitting except at spaces and digits. These are the
conventions of the released checkpoints' `tokenizer.model`, so `osprey_model` reads both with the same code. Words of
the demo world and of the reference's prompts become single pieces. Some plain English is added, so that other words
split into larger pieces ("rooftop" into roof + top) instead of into letters.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path

import sentencepiece

MODEL_FILE = "tokenizer.model"
REGION_TOKENS = ("<mask>", "<pos>")  # ids vocab_size and vocab_size + 1: behind the embedding table
_WORD_REPEATS = 60  # so that words of the demo world are more frequent than fragments of plain English

PROMPT_TEXTS: tuple[str, ...] = (
    "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the human's questions. USER: This provides an overview of the picture. ASSISTANT:",
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions. USER: This provides an overview of the picture. ASSISTANT:",
    "Ther are 1 part region in the picture: region1, region2. Answer the question using a single word or phrase.",
    "What is the category of region1? Using only one word or phrase. Answer the question using a short phrase.",
    "What part is region1? What is the color of region1? What is the material of region1?",
    "Where is region1? What is next to region1? Is there a thing in the picture? Please describe region1 in detail.",
    "Please give me a short description of region1. Using a short phrase.",
    "Can you give me a detailed description of region1? What is in region1? What is region1 made of?",
    "Is the category of region1 dog? Dog is the category of region1, right? Is region2 above region1? Yes, No,",
    "What can you tell me about region1 in the picture?",
    "In the conversation below, you simply answer the category name based on what you see in the imagery inside a "
    "particular region. I will give you only one region each time.",
)
"""The reference's prompts (system prompts of inference and training, prefixes, questions, suffixes)."""

PLAIN_ENGLISH: tuple[str, ...] = (
    "The old man and the small dog walked over the bridge, because the road was under water again.",
    "There were three white sheep on the hill, two brown horses by the fence and a girl with a long scarf.",
    "A woman in a striped shirt is holding an umbrella in her left hand and a paper cup in the other.",
    "People were waiting at the station for the morning train, which came ten minutes later than it should have.",
    "On the table are a plate with bread, a bowl of fruit, some forks and knives, and a bottle without a label.",
    "The rooftop is covered with snow; only the chimney and the top of the ladder can be seen.",
    "This is probably a kind of machine with a round handle, two large screws and something made of glass.",
    "He would have thought about what they could do first, before anyone else had to make the same choice.",
    "Behind the building there is a garden with a wooden bench, a stone wall, and flowers in every color.",
    "The photograph shows a young player in a green uniform who is about to throw the ball across the field.",
    "How many wheels are there, and where is the light coming from? It is not clear, so look more closely.",
    "She has put the plastic chair between the window and the door, near the corner of the living room.",
    "Some of these things are much bigger than others; most of them are thick, smooth, shiny, soft or rough.",
    "A computer, a keyboard and a mobile phone lie beside the notebook; the screen is dark and the mouse is missing.",
    "The bicycle leans against a traffic sign while a bus, a truck and several cars pass along the street.",
    "Both cats are sleeping on the couch, one with its tail around its feet, the other upside down.",
    "An airplane flies high above the clouds; its wings and engine reflect the bright sunlight.",
    "You should use your own words when you answer; every region may be an animal, a person, food or furniture.",
    "Left of the mirror hangs a picture, right of it a clock; below them stands a metal shelf full of books.",
    "Inside the kitchen a refrigerator, an oven and a sink were being cleaned after the dinner last night.",
)
"""A little everyday English, written for this file, so that pieces for common stems and endings exist."""


def train_tokenizer(answers: Iterable[str], words: Sequence[str], vocab_size: int) -> bytes:
    """Train the SentencePiece model; the same input gives the same bytes.

    Args:
        answers: texts in the demo world's grammar.
        words: the vocabulary of the demo world; each word becomes one piece.
        vocab_size: number of pieces, the 256 bytes and 3 control pieces included.

    Raises:
        ValueError: a word of the demo world did not become one piece, so `vocab_size` is too small.
    """
    lines = [*PLAIN_ENGLISH, *(line for line in PROMPT_TEXTS for _ in range(_WORD_REPEATS)), *answers]
    lines += [word for word in words for _ in range(_WORD_REPEATS)]
    model = BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        model_type="bpe",
        vocab_size=vocab_size,
        byte_fallback=True,
        character_coverage=1.0,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        split_digits=True,
        add_dummy_prefix=True,
        required_chars="".join(chr(code) for code in range(33, 127)),
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    broken = [word for word in words if len(processor.encode(word)) != 1]
    if broken:
        raise ValueError(
            f"expected every word of the demo world to be one piece, but {len(broken)} of {len(words)} are split, "
            f"for example {broken[:5]}; raise vocab_size (now {vocab_size})"
        )
    return model.getvalue()


def write_tokenizer(folder: Path, model: bytes) -> None:
    """Write `tokenizer.model` and the small JSON files that released checkpoints have beside it."""
    vocab_size = sentencepiece.SentencePieceProcessor(model_proto=model).vocab_size()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MODEL_FILE).write_bytes(model)
    added = {token: vocab_size + idx for idx, token in enumerate(REGION_TOKENS)}
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<unk>"}
    settings = {
        "add_bos_token": True,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "legacy": False,
        "model_max_length": 2048,
        "padding_side": "right",
        "tokenizer_class": "LlamaTokenizer",
        **special,
    }
    for name, content in (
        ("added_tokens.json", added),
        ("special_tokens_map.json", special),
        ("tokenizer_config.json", settings),
    ):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
