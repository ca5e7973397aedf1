"""Osprey: tower, projector and mask extractor in front of a LLaMA decoder (paper, figure 2).

# B samples, S image side, L token ids, T positions after the splice, R regions, D decoder width, V vocabulary

The class is transformers' `LlamaForCausalLM` with three more modules. They are attached where a released checkpoint has
them, so that the state dict has the released names: `model.vision_tower`, `model.mm_projector`, and `mask_extractor` at
the top.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM, LlamaForCausalLM
from transformers.modeling_outputs import CausalLMOutputWithPast

from osprey_model.config import IGNORE_INDEX, IMAGE_LEVEL, LEVELS, OspreyConfig
from osprey_model.modeling.hf_config import OspreyHfConfig
from osprey_model.modeling.mask_extractor import MaskExtractor, RegionTokens
from osprey_model.modeling.packed_rows import packed_attention, packed_positions
from osprey_model.modeling.projector import Projector
from osprey_model.modeling.splice import PlaceholderMismatch, SplicedBatch, splice
from osprey_model.modeling.vision_encoder import VisionEncoder
from osprey_model.modeling.weight_names import LAYER_SCALE_ALIAS, raise_problems


class OspreyForCausalLM(LlamaForCausalLM):  # type: ignore[misc] # transformers is untyped here
    """Images, masks and token ids -> next-token logits. Create it with `osprey_model.weights.build.build_osprey`."""

    config_class = OspreyHfConfig
    # With this, transformers' own loading leaves the extractor in float32 too; see `keep_extractor_in_float32`.
    _keep_in_fp32_modules_strict = frozenset({"mask_extractor"})
    # Buffers of transformers 4.31, see `weight_names.py`.
    _keys_to_ignore_on_load_unexpected = (r"rotary_emb\.inv_freq$",)

    def __init__(self, config: OspreyHfConfig) -> None:
        super().__init__(config)
        sizes = config.sizes()
        self.sizes: OspreyConfig = sizes
        self.model.vision_tower = VisionEncoder(sizes)
        self.model.mm_projector = Projector(sizes.vision_dims[LEVELS.index(IMAGE_LEVEL)], sizes.hidden_size)
        self.mask_extractor = MaskExtractor(sizes)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        images: Tensor | Mapping[str, Tensor] | None = None,
        masks: Sequence[Tensor | None] | None = None,
        labels: Tensor | None = None,
        loss_weights: Tensor | None = None,
        row_ids: Tensor | None = None,
        num_items_in_batch: Tensor | float | None = None,
        inputs_embeds: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        **decoder_arguments: Any,
    ) -> CausalLMOutputWithPast:
        """Run the whole model: tower, projector, mask extractor, splice, decoder.

        Args:
            input_ids: (B, L) with -200 at the image and the region ids; right padded.
            attention_mask: (B, L), True at real ids; None: no id is padding.
            images: (B, 3, S, S) preprocessed, or the tower's four levels of them, each (B, C, h, w). Not used for a
                sample without -200.
            masks: per sample (R, H, W) in order of appearance, None without regions.
            labels: (B, L), -100 where a token is not learned. With labels, the loss is the mean over all learned tokens
                of the batch; the head runs at those positions only, and the output's `logits` are None.
            loss_weights: (B, L), weight of each label in the loss; None: all labels have the same.
            row_ids: (B, L) of packed questions, see `packed_rows.py`; None: plain conversations.
            num_items_in_batch: divisor of the loss instead of this batch's own (weighted) number of learned tokens,
                namely the number over all devices and accumulated batches. The name is transformers'.
            inputs_embeds: (B, T, D), already spliced, for decoding; images and masks must then be None.
            logits_to_keep: 0 for the logits of every position, n for the last n.
            **decoder_arguments: passed on to the LLaMA model (past_key_values, position_ids, use_cache, ...).

        Raises:
            PlaceholderMismatch: placeholders and images or masks do not fit together.
        """
        if inputs_embeds is None and (images is not None or masks is not None):
            if input_ids is None:
                raise PlaceholderMismatch("images or masks were given without input_ids to place them in")
            batch = self.embed_batch(input_ids, images, masks, attention_mask=attention_mask, labels=labels)
            inputs_embeds, attention_mask, labels = batch.inputs_embeds_BTD, batch.attention_mask_BT, batch.labels_BT
            loss_weights = None if loss_weights is None else batch.spread(loss_weights)
            if row_ids is not None:
                row_ids = batch.spread(row_ids)
                decoder_arguments["position_ids"] = packed_positions(row_ids)
                attention_mask = packed_attention(row_ids, attention_mask, inputs_embeds.dtype)
            input_ids = None
        outputs = self.model(
            input_ids=input_ids, inputs_embeds=inputs_embeds, attention_mask=attention_mask, **decoder_arguments
        )
        hidden_BTD = outputs.last_hidden_state
        loss, logits = None, None
        if labels is not None:
            loss = self.next_token_loss(hidden_BTD, labels, weights_BT=loss_weights, total=num_items_in_batch)
        else:
            keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
            logits = self.lm_head(hidden_BTD[:, keep])
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def embed_batch(
        self,
        input_ids: Tensor,
        images: Tensor | Mapping[str, Tensor] | None = None,
        masks: Sequence[Tensor | None] | None = None,
        *,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> SplicedBatch:
        """Run everything in front of the decoder: tower, projector, mask extractor, splice.

        Raises:
            PlaceholderMismatch: the numbers of samples, placeholders, images or masks do not fit together.
        """
        num_samples = input_ids.shape[0]
        level = images[IMAGE_LEVEL] if isinstance(images, Mapping) else images
        for name, given in (("images", level), ("masks", masks)):
            if given is not None and len(given) != num_samples:
                raise PlaceholderMismatch(f"expected {num_samples} entries in {name}, one per sample, got {len(given)}")
        image_tokens_BND, regions = None, None
        if images is not None:
            levels = images if isinstance(images, Mapping) else self.encode_images(images)
            image_tokens_BND = self.project(levels)
            if masks is not None:
                regions = [
                    None if mask is None else self.extract_regions({k: v[idx] for k, v in levels.items()}, mask)
                    for idx, mask in enumerate(masks)
                ]
        elif masks is not None and any(mask is not None for mask in masks):
            raise PlaceholderMismatch("masks were given without images")
        return splice(
            input_ids,
            embed=self.model.embed_tokens,
            mask_token_id=cast(int, self.sizes.mask_token_id),
            image_tokens_BND=image_tokens_BND,
            regions=regions,
            attention_mask_BL=attention_mask,
            labels_BL=labels,
        )

    def encode_images(self, images_B3SS: Tensor) -> dict[str, Tensor]:
        """Run the tower; return its four levels, each (B, C, h, w)."""
        return cast(dict[str, Tensor], self.model.vision_tower(images_B3SS))

    def project(self, levels: Mapping[str, Tensor]) -> Tensor:
        """Compute image tokens (B, N, D)."""
        return cast(Tensor, self.model.mm_projector(levels[IMAGE_LEVEL]))

    def extract_regions(
        self, levels: Mapping[str, Tensor], masks_RHW: Tensor | Sequence[Tensor], *, finer_read: bool = False
    ) -> RegionTokens:
        """Compute mask and spatial tokens of the regions of one image.

        Args:
            levels: of that image.
            masks_RHW: one tensor, or a sequence of (H, W) masks of several sizes; moved to the levels' device.
            finer_read: see `MaskExtractor.forward`.

        Raises:
            ValueError: the masks are not (R, H, W).
        """
        if not isinstance(masks_RHW, Tensor):
            parts = [self.extract_regions(levels, mask_HW[None], finer_read=finer_read) for mask_HW in masks_RHW]
            return RegionTokens.joined(parts)
        if masks_RHW.ndim != 3 or 0 in masks_RHW.shape[1:]:
            raise ValueError(f"expected masks of shape (R, H, W), got {tuple(masks_RHW.shape)}")
        masks_RHW = masks_RHW.to(next(iter(levels.values())).device)
        return cast(RegionTokens, self.mask_extractor(levels, masks_RHW, finer_read=finer_read))

    def next_token_loss(
        self,
        hidden_BTD: Tensor,
        labels_BT: Tensor,
        *,
        weights_BT: Tensor | None = None,
        total: Tensor | float | None = None,
    ) -> Tensor:
        """Compute the cross-entropy in float32: the (weighted) mean over the learned tokens, or the sum over `total`.

        Raises:
            ValueError: the batch has no token to learn, so the mean would be NaN.
        """
        targets_BT = labels_BT[:, 1:]
        learned_BT = targets_BT != IGNORE_INDEX
        if not bool(learned_BT.any()):
            raise ValueError("no label to learn in this batch: every position is -100; check how its labels were made")
        logits_KV = self.lm_head(hidden_BTD[:, :-1][learned_BT])
        if weights_BT is None and total is None:
            return functional.cross_entropy(logits_KV.float(), targets_BT[learned_BT])
        losses_K = functional.cross_entropy(logits_KV.float(), targets_BT[learned_BT], reduction="none")
        weights_K = torch.ones_like(losses_K) if weights_BT is None else weights_BT[:, 1:][learned_BT]
        return (losses_K * weights_K).sum() / (weights_K.sum() if total is None else total)

    @torch.inference_mode()
    def generate(self, inputs: Tensor | None = None, **arguments: Any) -> Any:
        """Generate as transformers does, with `images` and `masks` as in `forward`. The processor prepares them.

        Args:
            inputs: or `input_ids`: as in `forward`; rows may have unequal lengths.
            **arguments: `images`, `masks`, `attention_mask`, and the arguments of transformers' `generate`.

        Returns:
            As transformers: the given ids, then the new ones (or an output object with `return_dict_in_generate`).

        Raises:
            PlaceholderMismatch: placeholders and images or masks do not fit together.
        """
        input_ids = arguments.pop("input_ids", inputs)
        images, masks = arguments.pop("images", None), arguments.pop("masks", None)
        if input_ids is None:
            return super().generate(**arguments)
        batch = self.embed_batch(input_ids, images, masks, attention_mask=arguments.pop("attention_mask", None))
        embeds_BTD, attention_BT = batch.padded_left()
        output = super().generate(inputs_embeds=embeds_BTD, attention_mask=attention_BT, **arguments)
        new_ids = output if isinstance(output, Tensor) else output.sequences
        # Several sequences per prompt are further rows: repeat the prompts.
        prompts = input_ids.repeat_interleave(len(new_ids) // len(input_ids), dim=0)
        sequences = torch.cat([prompts, new_ids], dim=1)
        if isinstance(output, Tensor):
            return sequences
        output.sequences = sequences
        return output

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *inputs: Any, **arguments: Any) -> Any:
        """Load as transformers does, but completely or not at all.

        Raises:
            CheckpointError: keys are missing, unexpected or misshapen; transformers would only log a warning.
        """
        wants_info = arguments.pop("output_loading_info", False)
        arguments.setdefault("key_mapping", {LAYER_SCALE_ALIAS.pattern: r"\1.gamma"})
        model, info = super().from_pretrained(
            pretrained_model_name_or_path, *inputs, output_loading_info=True, ignore_mismatched_sizes=True, **arguments
        )
        problems = {
            "missing": sorted(info["missing_keys"]),
            "unexpected": sorted(info["unexpected_keys"]),
            "misshapen": sorted(str(key) for key in info["mismatched_keys"]),
        }
        raise_problems(problems, source=str(pretrained_model_name_or_path))
        for parameter in model.parameters():
            # Mapped tensors may not be aligned; kernels then round the last bit of 16-bit sums differently.
            if parameter.device.type == "cpu" and parameter.data_ptr() % 64:
                parameter.data = parameter.data.clone()
        return (model, info) if wants_info else model

    def keep_extractor_in_float32(self) -> OspreyForCausalLM:
        """Cast the mask extractor back to float32 after a cast of the whole model; return the model."""
        self.mask_extractor.to(torch.float32)
        return self


AutoConfig.register(OspreyHfConfig.model_type, OspreyHfConfig, exist_ok=True)
AutoModelForCausalLM.register(OspreyHfConfig, OspreyForCausalLM, exist_ok=True)
