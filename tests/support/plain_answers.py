"""The reference for the engine: one whole prompt per question through transformers' own model."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from osprey_model.engine.decoding.choices import ChoiceTrie, ChoiceWalk
from osprey_model.engine.requests import Question
from osprey_model.inputs import prompts
from osprey_model.inputs.preprocess import ImagePreprocessor
from osprey_model.inputs.tokenizer import OspreyTokenizer
from osprey_model.modeling.osprey import OspreyForCausalLM
from osprey_model.modeling.splice import SplicedBatch


def plain_answer(
    model: OspreyForCausalLM, tokenizer: OspreyTokenizer, image: Image.Image, mask: np.ndarray, question: Question
) -> tuple[str, list[float]]:
    """Answer one question; return its text and the log-probabilities of its tokens.

    A free answer comes from `generate`, a closed one from a loop over whole sequences.
    """
    if question.choices:
        return _closed(model, tokenizer, image, mask, question)
    with torch.inference_mode():
        batch = _embedded(model, tokenizer, image, mask, question)
        out = model.generate(
            inputs_embeds=batch.inputs_embeds_BTD,
            attention_mask=batch.attention_mask_BT,
            max_new_tokens=question.max_new_tokens,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
    logprobs = [
        step[0].float().log_softmax(-1)[token].item() for step, token in zip(out.logits, out.sequences[0], strict=True)
    ]
    return prompts.drop_repeats(prompts.clean(tokenizer.decode(out.sequences[0].tolist()))), logprobs


@torch.inference_mode()
def _closed(
    model: OspreyForCausalLM, tokenizer: OspreyTokenizer, image: Image.Image, mask: np.ndarray, question: Question
) -> tuple[str, list[float]]:
    trie = ChoiceTrie(question.choices, tokenizer)
    walk = ChoiceWalk(trie, multiple=question.multiple)
    embeds = _embedded(model, tokenizer, image, mask, question).inputs_embeds_BTD
    taken: list[float] = []
    while not walk.done and len(taken) < max(question.max_new_tokens, trie.longest + 1):
        logprobs = model(inputs_embeds=embeds).logits[0, -1].double().log_softmax(-1)
        allowed = walk.allowed()
        of_allowed = logprobs[torch.as_tensor(allowed)]
        token = walk.take(allowed, of_allowed.softmax(-1).numpy())
        taken.append(float(logprobs[token]))
        embeds = torch.cat([embeds, model.model.embed_tokens(torch.tensor([[token]]))], dim=1)
    return ", ".join(walk.values()), taken


def _embedded(
    model: OspreyForCausalLM, tokenizer: OspreyTokenizer, image: Image.Image, mask: np.ndarray, question: Question
) -> SplicedBatch:
    message = prompts.PREFIX_P + prompts.question_message(question.text, question.form)
    ids = torch.tensor([tokenizer.encode_prompt(prompts.INFERENCE.prompt([(message, None)]))], device=model.device)
    pixels = ImagePreprocessor(model.sizes.image_size)(image)[None].to(model.device)
    return model.embed_batch(ids, pixels, [torch.from_numpy(mask)[None].to(model.device)])
