"""Block formats of GGUF: float32 matrices to the bytes of a type. Layouts: docs/formats/gguf.md.

Every function takes a float32 array [rows][columns] whose columns are whole blocks, and returns a
uint8 array [rows * blocks][bytes of a block]. Rounding is plain: the scale that the extreme values of
a group ask for, then the nearest code under the scale as it is stored. No search for better ones:
these models have random weights, and only speed is measured with them.
"""
import numpy as np

# name: number in the file, elements of a block, bytes of a block
TYPES = {
    "F32": (0, 1, 4),
    "F16": (1, 1, 2),
    "Q4_0": (2, 32, 18),
    "Q8_0": (8, 32, 34),
    "Q4_K": (12, 256, 144),
    "Q6_K": (14, 256, 210),
    "BF16": (30, 1, 2),
}


def reciprocal(x):
    """1 / x, and 0 where x is 0: a block of zeros has scale 0 and any code."""
    return np.divide(1.0, x, out=np.zeros_like(x), where=x != 0)


def stored_half(x):
    """x as f16, and the float32 that a reader of that f16 sees."""
    half = x.astype("<f2")
    return half, half.astype(np.float32)


def extreme_of(groups):
    """The value of largest magnitude of each group, with its sign."""
    low, high = groups.min(axis=-1), groups.max(axis=-1)
    return np.where(-low > high, low, high)


def codes(x, factor, shift, low, high):
    """clip(round(x * factor) + shift) as uint8; x [… group][element], factor [… group]."""
    scaled = x * factor[..., None]
    np.rint(scaled, out=scaled)
    scaled += shift
    return np.clip(scaled, low, high, out=scaled).astype(np.uint8)


def to_f32(x):
    return x.astype("<f4").view(np.uint8).reshape(-1, 4)


def to_f16(x):
    return x.astype("<f2").view(np.uint8).reshape(-1, 2)


def to_bf16(x):
    """The upper half of the float, rounded to nearest, ties to even."""
    bits = x.view(np.uint32)
    rounded = (bits + np.uint32(0x7fff) + ((bits >> 16) & 1)) >> 16
    return rounded.astype("<u2").view(np.uint8).reshape(-1, 2)


def to_q8_0(x):
    blocks = x.reshape(-1, 32)
    half, scale = stored_half(np.abs(extreme_of(blocks)) / np.float32(127))
    out = np.empty((len(blocks), 34), np.uint8)
    out[:, :2] = half.view(np.uint8).reshape(-1, 2)
    scaled = blocks * reciprocal(scale)[:, None]
    np.rint(scaled, out=scaled)
    out[:, 2:] = np.clip(scaled, -127, 127, out=scaled).astype(np.int8).view(np.uint8)
    return out


def to_q4_0(x):
    """The scale puts the extreme value at code 0, which stands for -8."""
    blocks = x.reshape(-1, 32)
    half, scale = stored_half(extreme_of(blocks) / np.float32(-8))
    found = codes(blocks, reciprocal(scale), 8, 0, 15)
    out = np.empty((len(blocks), 18), np.uint8)
    out[:, :2] = half.view(np.uint8).reshape(-1, 2)
    out[:, 2:] = found[:, :16] | found[:, 16:] << 4
    return out


def pack_q4_k_scales(scales, minima):
    """Eight 6-bit scales and eight 6-bit minima [block][8] as 12 bytes: the first four of each lie
    in the low six bits of bytes 0-3 and 4-7, whose top two bits are the top bits of the other four;
    the low four bits of those are nibbles of bytes 8-11."""
    out = np.empty((len(scales), 12), np.uint8)
    out[:, 0:4] = scales[:, :4] | (scales[:, 4:] >> 4) << 6
    out[:, 4:8] = minima[:, :4] | (minima[:, 4:] >> 4) << 6
    out[:, 8:12] = (scales[:, 4:] & 15) | (minima[:, 4:] & 15) << 4
    return out


def to_q4_k(x):
    """Groups of 32 have value = d * scale * code - dmin * minimum, scale and minimum of 6 bits."""
    groups = x.reshape(-1, 8, 32)
    low = np.minimum(groups.min(axis=2), 0)
    step = (groups.max(axis=2) - low) / np.float32(15)
    low = -low
    d_half, d = stored_half(step.max(axis=1) / np.float32(63))
    m_half, m = stored_half(low.max(axis=1) / np.float32(63))
    scales = codes(step, reciprocal(d), 0, 0, 63)
    minima = codes(low, reciprocal(m), 0, 0, 63)
    factor = reciprocal(d[:, None] * scales)
    shifted = groups + (m[:, None] * minima)[:, :, None]
    found = codes(shifted, factor, 0, 0, 15).reshape(-1, 4, 2, 32)
    out = np.empty((len(groups), 144), np.uint8)
    out[:, 0:2] = d_half.view(np.uint8).reshape(-1, 2)
    out[:, 2:4] = m_half.view(np.uint8).reshape(-1, 2)
    out[:, 4:16] = pack_q4_k_scales(scales, minima)
    out[:, 16:] = (found[:, :, 0] | found[:, :, 1] << 4).reshape(-1, 128)
    return out


def to_q6_k(x):
    """Groups of 16 have value = d * scale * (code - 32), scale of 8 bits with a sign; the extreme
    value of a group goes to -32."""
    groups = x.reshape(-1, 16, 16)
    scale = extreme_of(groups) / np.float32(-32)
    half, d = stored_half(np.abs(scale).max(axis=1) / np.float32(127))
    stored = np.clip(np.rint(scale * reciprocal(d)[:, None]), -127, 127).astype(np.int8)
    factor = reciprocal(d[:, None] * stored)
    found = codes(groups, factor, 32, 0, 63).reshape(-1, 2, 4, 32) # [block][half][quarter][l]
    low, high = found & 15, found >> 4
    out = np.empty((len(groups), 210), np.uint8)
    out[:, 0:128] = np.stack([low[:, :, 0] | low[:, :, 2] << 4, low[:, :, 1] | low[:, :, 3] << 4],
                             axis=2).reshape(-1, 128)
    out[:, 128:192] = (high[:, :, 0] | high[:, :, 1] << 2 | high[:, :, 2] << 4
                       | high[:, :, 3] << 6).reshape(-1, 64)
    out[:, 192:208] = stored.view(np.uint8)
    out[:, 208:] = half.view(np.uint8).reshape(-1, 2)
    return out


ENCODERS = {"F32": to_f32, "F16": to_f16, "BF16": to_bf16, "Q8_0": to_q8_0, "Q4_0": to_q4_0,
            "Q4_K": to_q4_k, "Q6_K": to_q6_k}


def encode(x, kind):
    """The bytes of a float32 matrix in type `kind`."""
    block = TYPES[kind][1]
    if x.shape[-1] % block:
        raise ValueError(f"{x.shape[-1]} columns are no whole blocks of {kind} ({block})")
    return ENCODERS[kind](np.ascontiguousarray(x, np.float32)).tobytes()


def encoded_bytes(rows, columns, kind):
    _, block, block_bytes = TYPES[kind]
    return rows * (columns // block) * block_bytes
