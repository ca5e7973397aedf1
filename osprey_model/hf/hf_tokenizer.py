"""The exact tokenizer (`osprey_model/inputs/tokenizer.py`) as a transformers tokenizer.

From the same files transformers builds a tokenizer with other ids. This class therefore ignores their normaliser and
builds its own, whatever class the folder's tokenizer_config.json names.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, processors
from transformers import PreTrainedTokenizerFast

from osprey_model.inputs.tokenizer import MASK_TOKEN, POSITION_TOKEN, OspreyTokenizer

_BOS, _EOS, _UNK = "<s>", "</s>", "<unk>"


class OspreyHfTokenizer(PreTrainedTokenizerFast):  # type: ignore[misc] # transformers is untyped here
    """A tokenizer with the ids of `OspreyTokenizer.encode`. Texts with `<image>` need the processor."""

    model_input_names = ["input_ids", "attention_mask"]  # noqa: RUF012 - transformers' own form

    @classmethod
    def from_osprey(cls, tokenizer: OspreyTokenizer, **kwargs: Any) -> OspreyHfTokenizer:
        """Wrap a tokenizer; it puts a BOS in front, as LLaMA's does."""
        wrapped = Tokenizer.from_str(tokenizer.to_json())
        wrapped.post_processor = processors.TemplateProcessing(
            single=f"{_BOS} $A", pair=f"{_BOS} $A {_BOS} $B", special_tokens=[(_BOS, tokenizer.bos_token_id)]
        )
        return cls(
            tokenizer_object=wrapped,
            bos_token=_BOS,
            eos_token=_EOS,
            unk_token=_UNK,
            pad_token=_UNK,
            additional_special_tokens=[MASK_TOKEN, POSITION_TOKEN],
            padding_side="right",
            clean_up_tokenization_spaces=False,
            **kwargs,
        )

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *_: Any, **__: Any) -> OspreyHfTokenizer:
        """Read `tokenizer.model` or `tokenizer.json` of a checkpoint folder.

        Raises:
            FileNotFoundError: the folder has neither.
            TokenizerError: neither holds Osprey's vocabulary.
        """
        return cls.from_osprey(OspreyTokenizer.from_folder(Path(pretrained_model_name_or_path)))
