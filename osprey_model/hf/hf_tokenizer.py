"""The exact tokenizer (`tokenizer.py`) as a transformers tokenizer, for AutoTokenizer and the processor.

transformers builds other ids from the same files (see `tokenizer.py`), so this class ignores their normaliser and
puts its own together, whatever class the folder's tokenizer_config.json names. Registered in `auto.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, processors
from transformers import PreTrainedTokenizerFast

from osprey_model.inputs.tokenizer import MASK_TOKEN, POSITION_TOKEN, OspreyTokenizer

_BOS, _EOS, _UNK = "<s>", "</s>", "<unk>"


class OspreyHfTokenizer(PreTrainedTokenizerFast):  # type: ignore[misc] # transformers is untyped here
    """Ids equal to `OspreyTokenizer.encode`; texts with `<image>` are the processor's business."""

    model_input_names = ["input_ids", "attention_mask"]  # noqa: RUF012 - transformers' own form

    @classmethod
    def from_osprey(cls, tokenizer: OspreyTokenizer, **kwargs: Any) -> OspreyHfTokenizer:
        """Wrap a tokenizer; a BOS is put in front as LLaMA's does."""
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
