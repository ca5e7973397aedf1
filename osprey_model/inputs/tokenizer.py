"""Text -> exactly the ids the released checkpoints were trained on.

They were trained with LlamaTokenizerFast of transformers 4.31: byte-fallback BPE, and a normaliser (prepend
U+2581, turn spaces into U+2581) that is applied to *every stretch between special tokens*. Current
transformers builds another tokenizer from the same files, so this one is put together explicitly: vocabulary
and merges from `tokenizer.model` or `tokenizer.json`, everything else here.

`<mask>` and `<pos>` get the first two ids behind the vocabulary; they have no row in the embedding table.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sentencepiece import SentencePieceProcessor
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

from osprey_model.config import IMAGE_TOKEN_ID

SENTENCEPIECE_FILE = "tokenizer.model"
JSON_FILE = "tokenizer.json"
# What a checkpoint folder may hold of its tokenizer; ours reads the first two.
TOKENIZER_FILES = (
    SENTENCEPIECE_FILE,
    JSON_FILE,
    "added_tokens.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
)
IMAGE_TOKEN = "<image>"
MASK_TOKEN = "<mask>"
POSITION_TOKEN = "<pos>"
REGION_PLACEHOLDER = MASK_TOKEN + POSITION_TOKEN  # always written together

_UNK, _BOS, _EOS = "<unk>", "<s>", "</s>"
_META_SPACE = "\u2581"


class TokenizerError(ValueError):
    """A tokenizer file that cannot be read, or of another kind than Osprey's."""


class OspreyTokenizer:
    """Encode prompts, decode answers.

    Attributes:
        vocab_size: rows of the embedding table; `mask_token_id` and `pos_token_id` are the two ids behind it.
    """

    def __init__(self, vocab: dict[str, int], merges: Sequence[tuple[str, str]]) -> None:
        """Build from a vocabulary with byte tokens and its merges, best first.

        Raises:
            TokenizerError: a vocabulary without `<unk>`, `<s>`, `</s>` or a byte token.
        """
        needed = [_UNK, _BOS, _EOS, *(f"<0x{byte:02X}>" for byte in range(256))]
        missing = [token for token in needed if token not in vocab]
        if missing:
            raise TokenizerError(
                f"not a LLaMA vocabulary: {len(missing)} tokens are missing, the first is {missing[0]!r}; "
                "expected a SentencePiece BPE model with byte fallback"
            )
        self.vocab_size = max(vocab.values()) + 1
        self.bos_token_id, self.eos_token_id = vocab[_BOS], vocab[_EOS]
        self.pad_token_id = vocab[_UNK]  # as in the reference: padding is <unk>
        self.mask_token_id, self.pos_token_id = self.vocab_size, self.vocab_size + 1
        self._tokenizer = Tokenizer(
            models.BPE(vocab=vocab, merges=list(merges), unk_token=_UNK, fuse_unk=True, byte_fallback=True)
        )
        self._tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Prepend(_META_SPACE), normalizers.Replace(" ", _META_SPACE)]
        )
        self._tokenizer.decoder = decoders.Sequence(
            [
                decoders.Replace(_META_SPACE, " "),
                decoders.ByteFallback(),
                decoders.Fuse(),
                decoders.Strip(" ", 1, 0),
            ]
        )
        specials = [_UNK, _BOS, _EOS, MASK_TOKEN, POSITION_TOKEN]
        self._tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in specials])

    @classmethod
    def from_folder(cls, folder: Path | str) -> OspreyTokenizer:
        """Read a checkpoint folder: `tokenizer.model`, or else the vocabulary inside `tokenizer.json`.

        Raises:
            FileNotFoundError: the folder has neither.
            TokenizerError: the file is damaged or of another kind.
        """
        folder = Path(folder)
        if (folder / SENTENCEPIECE_FILE).is_file():
            return cls.from_sentencepiece(folder / SENTENCEPIECE_FILE)
        if (folder / JSON_FILE).is_file():
            return cls.from_json(folder / JSON_FILE)
        raise FileNotFoundError(
            f"no tokenizer in {folder}; expected {SENTENCEPIECE_FILE} or {JSON_FILE}: take the checkpoint's"
        )

    @classmethod
    def from_sentencepiece(cls, path: Path | str) -> OspreyTokenizer:
        """Read vocabulary and merges from a SentencePiece BPE model file."""
        try:
            pieces = SentencePieceProcessor(model_file=str(path))
        except (OSError, RuntimeError) as error:
            raise TokenizerError(f"{path} is no SentencePiece model: {error}; fetch it again") from error
        vocab = {pieces.id_to_piece(idx): idx for idx in range(pieces.get_piece_size())}
        scores = {piece: pieces.get_score(idx) for piece, idx in vocab.items()}
        return cls(vocab, merges_of(vocab, scores))

    @classmethod
    def from_json(cls, path: Path | str) -> OspreyTokenizer:
        """Take vocabulary and merges of a `tokenizer.json`; its normaliser is not trusted.

        Raises:
            TokenizerError: damaged, or not a BPE tokenizer.
        """
        return cls.from_json_text(Path(path).read_text(encoding="utf-8"), source=str(path))

    @classmethod
    def from_json_text(cls, text: str, *, source: str) -> OspreyTokenizer:
        """The same from the file's content; `source` is how an error calls it."""
        try:
            model: dict[str, Any] = json.loads(text)["model"]
            if model["type"] != "BPE":
                raise TokenizerError(f"{source} holds a {model['type']!r} tokenizer; Osprey's is BPE")
            # Written as "left right" before tokenizers 0.20, as [left, right] since.
            halves = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
            return cls(model["vocab"], [(str(left), str(right)) for left, right in halves])
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise TokenizerError(f"{source} is no tokenizer.json: {error!r}; fetch it again") from error

    def save_json(self, path: Path | str) -> None:
        """Write a `tokenizer.json` that any `tokenizers` reads with the same ids."""
        self._tokenizer.save(str(path))

    def to_json(self) -> str:
        """The content of `save_json`."""
        return str(self._tokenizer.to_str())

    def encode(self, text: str, *, add_bos: bool = True) -> list[int]:
        """Ids of a text without image. `<mask>`, `<pos>`, `<s>`, `</s>` and `<unk>` in it are special tokens."""
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        return [self.bos_token_id, *ids] if add_bos else list(ids)

    def encode_prompt(self, prompt: str) -> list[int]:
        """Ids of a prompt: BOS, then the pieces around `<image>` joined by the id -200."""
        ids = [self.bos_token_id]
        for idx, piece in enumerate(prompt.split(IMAGE_TOKEN)):
            if idx:
                ids.append(IMAGE_TOKEN_ID)
            ids.extend(self.encode(piece, add_bos=False))
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of generated ids, special tokens left out, not stripped."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def character_id(self, character: str) -> int:
        """The id of one ASCII character inside a word: its own piece or its byte."""
        for piece in (character, f"<0x{ord(character):02X}>"):
            token_id = self._tokenizer.token_to_id(piece)
            if token_id is not None:
                return int(token_id)
        raise ValueError(f"expected an ASCII character, got {character!r}")

    def token(self, token_id: int) -> str:
        """The piece behind an id, for messages and inspection."""
        return IMAGE_TOKEN if token_id == IMAGE_TOKEN_ID else str(self._tokenizer.id_to_token(token_id))


def merges_of(vocab: dict[str, int], scores: dict[str, float]) -> list[tuple[str, str]]:
    """The BPE merges a SentencePiece vocabulary stands for, in the order transformers 4.31 lists them.

    SentencePiece keeps no merges: every way to cut a piece into two known pieces is one, ranked by the
    piece's score, then by the ids of the halves.
    """
    ranked: list[tuple[float, tuple[str, str]]] = []
    for piece, score in scores.items():
        halves = [(piece[:cut], piece[cut:]) for cut in range(1, len(piece))]
        known = [(left, right) for left, right in halves if left in vocab and right in vocab]
        known.sort(key=lambda pair: (vocab[pair[0]], vocab[pair[1]]))
        ranked.extend((score, pair) for pair in known)
    ranked.sort(key=lambda entry: entry[0], reverse=True)  # stable: pieces of one score stay in vocabulary order
    return [pair for _, pair in ranked]
