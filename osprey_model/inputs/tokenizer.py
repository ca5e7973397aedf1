"""Text -> exactly the ids that the released checkpoints were trained on.

They were trained with LlamaTokenizerFast of transformers 4.31: byte-fallback BPE, with a normaliser (prepend U+2581,
replace spaces by U+2581) that is applied to *every stretch between special tokens*. Current versions of transformers
build another tokenizer from the same files. So this one is built explicitly: vocabulary and merges are read from
`tokenizer.model` or `tokenizer.json`, and everything else is set here.

`<mask>` and `<pos>` have the first two ids behind the vocabulary, and no row in the embedding table.
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
# Files of a checkpoint folder that belong to its tokenizer; this module reads the first two only.
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
    """A tokenizer file cannot be read, or is of another kind than Osprey's."""


class OspreyTokenizer:
    """Encodes prompts and decodes answers.

    Attributes:
        vocab_size: number of rows of the embedding table; `mask_token_id` and `pos_token_id` are the next two ids.
    """

    def __init__(self, vocab: dict[str, int], merges: Sequence[tuple[str, str]]) -> None:
        """Build from a vocabulary with byte tokens and its merges, the best first.

        Raises:
            TokenizerError: the vocabulary lacks `<unk>`, `<s>`, `</s>` or a byte token.
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
        """Read `tokenizer.model` of a checkpoint folder, or else the vocabulary in its `tokenizer.json`.

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
            raise TokenizerError(f"{path} is not a SentencePiece model: {error}; fetch it again") from error
        vocab = {pieces.id_to_piece(idx): idx for idx in range(pieces.get_piece_size())}
        scores = {piece: pieces.get_score(idx) for piece, idx in vocab.items()}
        return cls(vocab, merges_of(vocab, scores))

    @classmethod
    def from_json(cls, path: Path | str) -> OspreyTokenizer:
        """Read vocabulary and merges of a `tokenizer.json`, but not its normaliser.

        Raises:
            TokenizerError: the file is damaged, or not of a BPE tokenizer.
        """
        return cls.from_json_text(Path(path).read_text(encoding="utf-8"), source=str(path))

    @classmethod
    def from_json_text(cls, text: str, *, source: str) -> OspreyTokenizer:
        """Read the content of a `tokenizer.json`; errors name `source`."""
        try:
            model: dict[str, Any] = json.loads(text)["model"]
            if model["type"] != "BPE":
                raise TokenizerError(f"{source} holds a {model['type']!r} tokenizer; Osprey's is BPE")
            # Written as "left right" before tokenizers 0.20, as [left, right] since.
            halves = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
            return cls(model["vocab"], [(str(left), str(right)) for left, right in halves])
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise TokenizerError(f"{source} is not a tokenizer.json: {error!r}; fetch it again") from error

    def save_json(self, path: Path | str) -> None:
        """Write a `tokenizer.json` from which the `tokenizers` library yields the same ids."""
        self._tokenizer.save(str(path))

    def to_json(self) -> str:
        """Return the content that `save_json` writes."""
        return str(self._tokenizer.to_str())

    def encode(self, text: str, *, add_bos: bool = True) -> list[int]:
        """Encode a text without image. `<mask>`, `<pos>`, `<s>`, `</s>` and `<unk>` in it are special tokens."""
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        return [self.bos_token_id, *ids] if add_bos else list(ids)

    def encode_prompt(self, prompt: str) -> list[int]:
        """Encode a prompt: BOS, then the pieces around `<image>`, joined by the id -200."""
        ids = [self.bos_token_id]
        for idx, piece in enumerate(prompt.split(IMAGE_TOKEN)):
            if idx:
                ids.append(IMAGE_TOKEN_ID)
            ids.extend(self.encode(piece, add_bos=False))
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Decode generated ids to text, without special tokens; the text is not stripped."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def character_id(self, character: str) -> int:
        """Return the id of one ASCII character inside a word: of its own piece, or of its byte.

        Raises:
            ValueError: it is not an ASCII character.
        """
        for piece in (character, f"<0x{ord(character):02X}>"):
            token_id = self._tokenizer.token_to_id(piece)
            if token_id is not None:
                return int(token_id)
        raise ValueError(f"expected an ASCII character, got {character!r}")

    def token(self, token_id: int) -> str:
        """Return the piece of an id, for messages and inspection."""
        return IMAGE_TOKEN if token_id == IMAGE_TOKEN_ID else str(self._tokenizer.id_to_token(token_id))


def merges_of(vocab: dict[str, int], scores: dict[str, float]) -> list[tuple[str, str]]:
    """Derive the BPE merges of a SentencePiece vocabulary, in the order of transformers 4.31.

    SentencePiece files contain no merges. Every way to cut a piece into two known pieces is a merge; merges are ranked
    by the piece's score, then by the ids of the two halves.
    """
    ranked: list[tuple[float, tuple[str, str]]] = []
    for piece, score in scores.items():
        halves = [(piece[:cut], piece[cut:]) for cut in range(1, len(piece))]
        known = [(left, right) for left, right in halves if left in vocab and right in vocab]
        known.sort(key=lambda pair: (vocab[pair[0]], vocab[pair[1]]))
        ranked.extend((score, pair) for pair in known)
    ranked.sort(key=lambda entry: entry[0], reverse=True)  # stable: pieces of one score stay in vocabulary order
    return [pair for _, pair in ranked]
