"""Label Studio brush RLE <-> bool mask.

A bit stream, most significant bit first: 32 bits number of values (4*W*H, RGBA row by row), 5 bits word
size - 1, four times 4 bits run size - 1, then packets: 1 bit (1 a run, 0 literal values), 2 bits index of the
run size, that many bits count - 1, then one word (run) or `count` words (literal). The mask is in alpha.
Our encoder gives byte for byte what `label_studio_sdk.converter.brush.mask2rle` gives.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

BoolMask = NDArray[np.bool_]

_HEADER_BITS = 32 + 5 + 4 * 4
_WORD_SIZE = 8
_RUN_SIZES = (3, 4, 8, 16)
_LONGEST_RUN = 1 << _RUN_SIZES[-1]
_OPAQUE = 255
_THRESHOLD = 128  # an edge painted by hand is anti-aliased


def encode_brush_rle(mask: BoolMask) -> list[int]:
    """The bytes, as integers, of a bool mask of shape (H, W).

    Raises:
        ValueError: `mask` is not two-dimensional bool, or holds no pixel.
    """
    if mask.ndim != 2 or mask.dtype != np.bool_ or mask.size == 0:
        raise ValueError(f"expected a bool mask of shape (H, W), got {mask.dtype} of shape {mask.shape}")
    lengths, values = _runs_of_rgba(mask.ravel())
    size_idx = np.searchsorted([1 << bits for bits in _RUN_SIZES], lengths)  # the shortest size that holds the run
    run_bits = np.array(_RUN_SIZES)[size_idx]
    # One packet as one number: 1, index of the run size (2 bits), count - 1, word.
    head = (4 + size_idx) << (run_bits + _WORD_SIZE)
    packets = (head | ((lengths - 1) << _WORD_SIZE) | values).astype(np.uint32)
    packet_bits = 3 + run_bits + _WORD_SIZE
    bits_P32 = np.unpackbits(packets.astype(">u4").view(np.uint8).reshape(-1, 4), axis=1)
    used_P32 = np.arange(32) >= (32 - packet_bits)[:, None]
    stream = np.concatenate([_header(4 * mask.size), bits_P32[used_P32]])
    # The reference encoder pads a stream that already ends on a byte with one more zero byte.
    padding = np.zeros(8 - stream.size % 8, dtype=np.uint8)
    encoded: list[int] = np.packbits(np.concatenate([stream, padding])).tolist()
    return encoded


def decode_brush_rle(rle: Sequence[int], image_hw: tuple[int, int]) -> BoolMask:
    """The bool mask of shape `image_hw`: alpha of at least one half.

    Raises:
        ValueError: not bytes, cut short, of another word size, or of an image of another size.
    """
    data = _as_bytes(rle)
    height, width = image_hw
    expected = 4 * height * width
    header = int.from_bytes(data[:7], "big") >> (7 * 8 - _HEADER_BITS)
    num_values, word_size = header >> 21, ((header >> 16) & 31) + 1
    if num_values != expected:
        raise ValueError(
            f"expected a brush RLE of {expected} values for a {width}x{height} image, got one of {num_values}; "
            "the mask belongs to an image of another size"
        )
    if word_size != _WORD_SIZE:
        raise ValueError(f"expected a brush RLE of 8-bit words, got words of {word_size} bits")
    run_sizes = tuple(((header >> shift) & 15) + 1 for shift in (12, 8, 4, 0))
    values = _unpack(data, num_values, run_sizes)
    return values[3::4].reshape(image_hw) >= _THRESHOLD


def _runs_of_rgba(flat: BoolMask) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Lengths and words (0 or 255) of the runs of the four-channel image, none longer than a packet can say."""
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    lengths = 4 * np.diff(np.append(starts, flat.size))
    values = np.where(flat[starts], _OPAQUE, 0)
    num_packets = -(-lengths // _LONGEST_RUN)
    if num_packets.max() > 1:
        remainders = lengths - (num_packets - 1) * _LONGEST_RUN
        values = np.repeat(values, num_packets)
        lengths = np.full(values.size, _LONGEST_RUN)
        lengths[np.cumsum(num_packets) - 1] = remainders
    return lengths, values


def _header(num_values: int) -> NDArray[np.uint8]:
    number = num_values
    for width, value in ((5, _WORD_SIZE - 1), *((4, bits - 1) for bits in _RUN_SIZES)):
        number = (number << width) | value
    return np.array([int(bit) for bit in f"{number:0{_HEADER_BITS}b}"], dtype=np.uint8)


def _as_bytes(rle: Sequence[int]) -> bytes:
    try:
        data = bytes(rle)
    except (TypeError, ValueError) as error:
        raise ValueError(f"expected a brush RLE as a list of integers from 0 to 255: {error}") from error
    if len(data) * 8 < _HEADER_BITS:
        raise ValueError(f"expected a brush RLE, got {len(data)} bytes, which is less than its header")
    return data


def _unpack(data: bytes, num_values: int, run_sizes: tuple[int, ...]) -> NDArray[np.uint8]:
    """The values of all packets. Packets have no fixed length, so they are found one by one."""
    values = np.zeros(num_values, dtype=np.uint8)
    num_bits = len(data) * 8
    window = data + bytes(8)  # so that a read near the end finds 8 bytes
    from_bytes = int.from_bytes
    bit, done = _HEADER_BITS, 0
    while done < num_values:
        byte = bit >> 3
        # 40 bits hold the longest packet head with one word: 3 + 16 + 8, after up to 7 bits of another packet.
        word = (from_bytes(window[byte : byte + 5], "big") << (bit & 7)) & 0xFFFFFFFFFF
        run_bits = run_sizes[(word >> 37) & 3]
        count = ((word >> (37 - run_bits)) & ((1 << run_bits) - 1)) + 1
        is_run = word >> 39
        bit += 3 + run_bits + (_WORD_SIZE if is_run else _WORD_SIZE * count)
        if bit > num_bits:
            raise ValueError(f"the brush RLE ends after {done} of {num_values} values; it was cut short")
        if is_run:
            value = (word >> (29 - run_bits)) & 0xFF
            if value:
                values[done : done + count] = value
        else:
            literal = _read_words(data, bit - _WORD_SIZE * count, count)
            values[done : done + count] = literal[: num_values - done]
        done += count
    return values


def _read_words(data: bytes, first_bit: int, count: int) -> NDArray[np.uint8]:
    """`count` 8-bit words from a stream in which they need not start at a byte."""
    first, shift = divmod(first_bit, 8)
    raw = np.frombuffer(data, dtype=np.uint8, offset=first, count=min(count + 1, len(data) - first)).astype(np.uint16)
    if not shift:
        return raw[:count].astype(np.uint8)
    return ((raw[:count] << shift) | (raw[1 : count + 1] >> (8 - shift))).astype(np.uint8)
