"""The other way round of quantise.py: bytes of a GGUF type to float32. Layouts: docs/formats/gguf.md.

Every function takes a uint8 array [blocks][bytes of a block] and returns float32 [blocks][elements].
"""
import numpy as np

import quantise


def half_at(blocks, at):
    """The f16 of each block at byte `at`, as a float32 column."""
    return blocks[:, at:at + 2].copy().view("<f2").astype(np.float32)


def from_bf16(blocks):
    return (blocks.view("<u2").astype(np.uint32) << 16).view(np.float32)


def from_q8_0(blocks):
    return half_at(blocks, 0) * blocks[:, 2:].view(np.int8).astype(np.float32)


def from_q4_0(blocks):
    codes = np.concatenate([blocks[:, 2:] & 15, blocks[:, 2:] >> 4], axis=1)
    return half_at(blocks, 0) * (codes.astype(np.float32) - 8)


def from_q4_k(blocks):
    packed = blocks[:, 4:16]
    low, middle, high = packed[:, 0:4], packed[:, 4:8], packed[:, 8:12]
    scales = np.concatenate([low & 63, (high & 15) | (low >> 6) << 4], axis=1)
    minima = np.concatenate([middle & 63, (high >> 4) | (middle >> 6) << 4], axis=1)
    pairs = blocks[:, 16:].reshape(-1, 4, 1, 32)
    codes = np.concatenate([pairs & 15, pairs >> 4], axis=2).reshape(-1, 8, 32)
    scale = half_at(blocks, 0) * scales.astype(np.float32)
    minimum = half_at(blocks, 2) * minima.astype(np.float32)
    return (scale[:, :, None] * codes.astype(np.float32) - minimum[:, :, None]).reshape(-1, 256)


def from_q6_k(blocks):
    low, high = blocks[:, :128].reshape(-1, 2, 2, 32), blocks[:, 128:192].reshape(-1, 2, 32)
    quarters = [(low[:, :, q % 2] >> 4 * (q // 2) & 15) | (high >> 2 * q & 3) << 4
                for q in range(4)]
    codes = np.stack(quarters, axis=2).reshape(-1, 16, 16).astype(np.float32) - 32
    scales = blocks[:, 192:208].view(np.int8).astype(np.float32)
    return (half_at(blocks, 208)[:, :, None] * (scales[:, :, None] * codes)).reshape(-1, 256)


DECODERS = {"F32": lambda blocks: blocks.view("<f4"),
            "F16": lambda blocks: blocks.view("<f2").astype(np.float32),
            "BF16": from_bf16, "Q8_0": from_q8_0, "Q4_0": from_q4_0, "Q4_K": from_q4_k,
            "Q6_K": from_q6_k}


def decode(data, rows, columns, kind):
    """float32 [rows][columns] of the bytes that quantise.encode writes."""
    blocks = np.frombuffer(data, np.uint8).reshape(-1, quantise.TYPES[kind][2])
    return DECODERS[kind](blocks).reshape(rows, columns)
