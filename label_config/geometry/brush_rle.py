"""Label Studio brush RLE <-> bool mask.

The format is that of @thi.ng/rle-pack, which Label Studio's page uses: a bit stream, most significant bit first.

    32 bits       number of values: 4*W*H, RGBA row by row; the mask is in alpha
    5 bits        word size - 1
    4 x 4 bits    the four run sizes - 1
    packets, each:
      1 bit       1: a run, 0: literal values
      2 bits      index of the run size
      run size    count - 1
      words       one word (run) or `count` words (literal values)

The encoder writes the same bytes as `label_studio_sdk.converter.brush.mask2rle`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

BoolMask = NDArray[np.bool_]

_HEADER_BITS = 32 + 5 + 4 * 4
_WORD_SIZE = 8
_RUN_SIZES = (3, 4, 8, 16)
_PACKET_BYTES = 5  # the most bytes that a packet of at most 27 bits touches
_LONGEST_RUN = 1 << _RUN_SIZES[-1]
_OPAQUE = 255
_THRESHOLD = 128  # of alpha, because edges painted by hand are anti-aliased


def encode_brush_rle(mask: BoolMask) -> list[int]:
    """Encode a bool mask of shape (H, W) as bytes, given as integers.

    Raises:
        ValueError: `mask` is not two-dimensional bool, or holds no pixel.
    """
    if mask.ndim != 2 or mask.dtype != np.bool_ or mask.size == 0:
        raise ValueError(f"expected a bool mask of shape (H, W), got {mask.dtype} of shape {mask.shape}")
    # The runs, each with the smallest run size that its length fits into.
    lengths, values = _runs_of_rgba(mask.ravel())
    size_idx = np.searchsorted([1 << bits for bits in _RUN_SIZES], lengths)
    run_bits = np.array(_RUN_SIZES)[size_idx]
    # Each packet as one number: 1, index of the run size (2 bits), count - 1, word.
    head = (4 + size_idx) << (run_bits + _WORD_SIZE)
    packets = head | ((lengths - 1) << _WORD_SIZE) | values
    # The bit at which each packet ends.
    packet_bits = 3 + run_bits + _WORD_SIZE
    ends = _HEADER_BITS + np.cumsum(packet_bits)
    # Header and packets. Like the reference encoder, pad a stream that ends on a byte's end with one more zero byte.
    stream = np.zeros(int(ends[-1]) // 8 + 1 + _PACKET_BYTES, dtype=np.uint8)
    stream[:7] = np.frombuffer(_header(4 * mask.size), dtype=np.uint8)
    _put(stream, ends - packet_bits, packets, packet_bits)
    encoded: list[int] = stream[:-_PACKET_BYTES].tolist()
    return encoded


def decode_brush_rle(rle: Sequence[int], image_hw: tuple[int, int]) -> BoolMask:
    """Decode to the bool mask of shape `image_hw`: alpha of at least one half.

    Raises:
        ValueError: the list is not bytes, is cut short, has another word size, or is of an image of another size.
    """
    data = _as_bytes(rle)
    height, width = image_hw
    expected = 4 * height * width
    # The header as one number, checked against the image's size and the only word size that is in use.
    header = int.from_bytes(data[:7], "big") >> (7 * 8 - _HEADER_BITS)
    num_values, word_size = header >> 21, ((header >> 16) & 31) + 1
    if num_values != expected:
        raise ValueError(
            f"expected a brush RLE of {expected} values for a {width}x{height} image, got one of {num_values}; "
            "the mask belongs to an image of another size"
        )
    if word_size != _WORD_SIZE:
        raise ValueError(f"expected a brush RLE of 8-bit words, got words of {word_size} bits")
    # Decode the packets to runs.
    run_sizes = tuple(((header >> shift) & 15) + 1 for shift in (12, 8, 4, 0))
    lengths, words = _runs_of_stream(data, num_values, run_sizes)
    # Only alpha counts. Of the first N values, N // 4 are alpha values, so runs of values become runs of pixels.
    last_px = np.minimum(np.cumsum(lengths), num_values) // 4
    return np.repeat(words >= _THRESHOLD, np.diff(last_px, prepend=0)).reshape(image_hw)


def _runs_of_rgba(flat: BoolMask) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return lengths and words (0 or 255) of the runs of the four-channel image, at most a packet's count long."""
    # Runs of pixels, times four channels.
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    lengths = 4 * np.diff(np.append(starts, flat.size))
    values = np.where(flat[starts], _OPAQUE, 0)
    # Split runs that are too long for one packet; the last piece has the remainder.
    num_packets = -(-lengths // _LONGEST_RUN)
    if num_packets.max() > 1:
        remainders = lengths - (num_packets - 1) * _LONGEST_RUN
        values = np.repeat(values, num_packets)
        lengths = np.full(values.size, _LONGEST_RUN)
        lengths[np.cumsum(num_packets) - 1] = remainders
    return lengths, values


def _put(
    stream: NDArray[np.uint8], bit: NDArray[np.int64], packets: NDArray[np.int64], packet_bits: NDArray[np.int64]
) -> None:
    """Write each packet at its bit.

    Bytes are written one offset at a time. No packet is shorter than a byte, so at one offset no two packets write to
    the same byte.
    """
    byte = bit >> 3
    # Each packet shifted to its place within five bytes.
    aligned = packets << (8 * _PACKET_BYTES - packet_bits - (bit & 7))
    for idx in range(_PACKET_BYTES):
        stream[byte + idx] |= (aligned >> (8 * (_PACKET_BYTES - 1 - idx))).astype(np.uint8)


def _header(num_values: int) -> bytes:
    """Encode number of values, word size and run sizes, padded to 7 bytes."""
    number = num_values
    for width, value in ((5, _WORD_SIZE - 1), *((4, bits - 1) for bits in _RUN_SIZES)):
        number = (number << width) | value
    return (number << (7 * 8 - _HEADER_BITS)).to_bytes(7, "big")


def _as_bytes(rle: Sequence[int]) -> bytes:
    try:
        data = bytes(rle)
    except (TypeError, ValueError) as error:
        raise ValueError(f"expected a brush RLE as a list of integers from 0 to 255: {error}") from error
    if len(data) * 8 < _HEADER_BITS:
        raise ValueError(f"expected a brush RLE, got {len(data)} bytes, fewer than its header has")
    return data


def _runs_of_stream(
    data: bytes, num_values: int, run_sizes: tuple[int, ...]
) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Return lengths and words of the stream's runs; a literal value is a run of one.

    Padding may be read as further runs, so their lengths may add up to more than `num_values`.
    """
    starts = _packet_starts(data, run_sizes)
    # The first 32 bits of each packet; 3 + 16 of them are needed, and 25 survive the shift.
    stream = np.frombuffer(data + bytes(4), dtype=np.uint8).astype(np.uint32)
    byte, shift = starts >> 3, (starts & 7).astype(np.uint32)
    head = sum(stream[byte + idx] << (24 - 8 * idx) for idx in range(4)) << shift
    # Kind, run size and count of each packet.
    run_bits = np.array(run_sizes, dtype=np.int64)[(head >> 29) & 3]
    counts = (((head << 3) & 0xFFFFFFFF) >> (32 - run_bits)) + 1
    is_run = head >> 31 == 1
    # For every word: the packet it belongs to and its position there. A run has one word.
    num_words = np.where(is_run, 1, counts)
    last_word = np.cumsum(num_words)
    packet = np.repeat(np.arange(starts.size), num_words)
    word_idx = np.arange(packet.size) - (last_word - num_words)[packet]
    # For every word: how often it repeats.
    lengths = np.where(is_run, counts, 1)[packet]
    if lengths.sum() < num_values:
        raise ValueError(f"the brush RLE ends after {lengths.sum()} of {num_values} values; it was cut short")
    return lengths, _words_at(stream, (starts + 3 + run_bits)[packet] + _WORD_SIZE * word_idx)


def _packet_starts(data: bytes, run_sizes: tuple[int, ...]) -> NDArray[np.int64]:
    """Return the bit at which each complete packet starts; padding may look like further packets.

    Where a packet starts is known only from the one before it, so a Python loop must visit all of them. To keep it
    short, a table has for every bit the length of the run packet that would start there.
    """
    # The first three bits at every position, and from them the length of a run packet; 0 for literal values.
    bits = np.unpackbits(np.frombuffer(data, dtype=np.uint8))
    kinds = np.zeros_like(bits)
    kinds[:-2] = 4 * bits[:-2] + 2 * bits[1:-1] + bits[2:]
    run_packet_bits = np.array([0] * 4 + [3 + size + _WORD_SIZE for size in run_sizes], dtype=np.uint8)
    steps = run_packet_bits[kinds].tobytes()
    # Walk from packet to packet.
    window = data + bytes(4)
    starts: list[int] = []
    bit, num_bits = _HEADER_BITS, len(steps)
    while bit < num_bits:
        starts.append(bit)
        step = steps[bit]
        if not step:  # literal values, whose number must be read from the stream
            byte = bit >> 3
            head = int.from_bytes(window[byte : byte + 4], "big") << (bit & 7)
            run_bits = run_sizes[(head >> 29) & 3]
            step = 3 + run_bits + _WORD_SIZE * (((head >> (29 - run_bits)) & ((1 << run_bits) - 1)) + 1)
        bit += step
    # The last packet does not count if the stream ends within it.
    if bit > num_bits:
        starts.pop()
    return np.array(starts, dtype=np.int64)


def _words_at(stream: NDArray[np.uint32], bit: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Read the 8-bit words that start at these bits, not necessarily at the start of a byte."""
    byte, shift = bit >> 3, (bit & 7).astype(np.uint32)
    words: NDArray[np.uint8] = (((stream[byte] << 8) | stream[byte + 1]) >> (8 - shift)).astype(np.uint8)
    return words
