"""SAM's number type and batch size on a device."""

from __future__ import annotations

import torch
from segment_anything.modeling import Sam

# Memory for the decoder's activations. On a CPU more is not faster, because they exceed its caches already.
_CPU_BATCH_BYTES = 256 * 1024**2
_GPU_BATCH_BYTES = 4 * 1024**3
_GPU_SHARE = 0.25  # of the free memory, because Osprey may be on the same device
_MOST_POINTS = 256
_CPU_POINTS = 32  # sam-nano: 11.6 ms per point with 32 of them, 15 with 64, 22 with 128


def encoder_dtype_of(device: torch.device) -> torch.dtype:
    """Return the fastest type of the image encoder on a device that is precise enough for masks."""
    if device.type == "cuda":
        # Emulated bfloat16 (before Ampere) is slower than float32.
        is_native = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if is_native else torch.float16
    capabilities = (
        torch.cpu.get_capabilities() if device.type == "cpu" and hasattr(torch.cpu, "get_capabilities") else {}
    )
    has_bfloat16 = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return torch.bfloat16 if has_bfloat16 else torch.float32


def decode_batch(sam: Sam) -> int:
    """Return how many points to decode together in the device's memory, at least one."""
    if sam.device.type == "cuda":
        free_bytes, _ = torch.cuda.mem_get_info(sam.device)
        budget = min(_GPU_BATCH_BYTES, int(_GPU_SHARE * free_bytes))
        return max(1, min(_MOST_POINTS, budget // point_bytes(sam)))
    return max(1, min(_CPU_POINTS, _CPU_BATCH_BYTES // point_bytes(sam)))


def point_bytes(sam: Sam) -> int:
    """Estimate the peak memory of one point's activations in the mask decoder, float32."""
    height, width = sam.prompt_encoder.image_embedding_size
    tokens, channels = height * width, sam.prompt_encoder.embed_dim
    num_masks = sam.mask_decoder.num_mask_tokens
    heads = sam.mask_decoder.transformer.num_heads
    # Keys, queries and sums of the two-way attention, its weights (about 8 prompt tokens), then the upscaled maps.
    attention = 8 * tokens * channels + 3 * heads * 8 * tokens
    upscaled = 3 * (4 * tokens * channels // 4) + 3 * (16 * tokens * channels // 8) + 2 * num_masks * 16 * tokens
    return int(4 * (attention + upscaled))
