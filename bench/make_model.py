#!/usr/bin/env python3
"""Write a model of a named shape with random weights, as GGUF, for measuring speed.

  make_model.py SHAPE OUT.gguf [--type F16|BF16|Q8_0|Q4_0|Q4_K_M] [--vocab FILE.gguf] …

The tokenizer is a real one, copied from --vocab (the demo model's by default) and padded with
tokens nobody uses up to the shape's vocabulary. Weights are normal with a standard deviation of
1 / sqrt(columns), so that activations stay near 1; norms are near 1. Each tensor is drawn from the
seed and its own name: its values do not depend on the type it is stored in. Tensors are made and
written some rows at a time, so memory does not grow with the model. Needs numpy.
"""
import argparse
import collections
import math
import mmap
import os
import pathlib
import struct
import sys
import time
import zlib

try:
    import numpy as np
except ImportError:
    sys.exit("make_model.py: needs numpy (pip install numpy, or apt install python3-numpy)")

import quantise

DEMO_MODEL = pathlib.Path(__file__).parents[1] / "models" / "demo" / "shoal-demo-q8_0.gguf"
U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
SCALARS = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "?",
           U64: "Q", I64: "q", F64: "d"}
ALIGNMENT = 32
PIECE_VALUES = 1 << 21 # made and written at once

Shape = collections.namedtuple(
    "Shape", "layers hidden ffn heads kv_heads head_size vocab theta tied")

# vocab 0: as many tokens as the tokenizer has
SHAPES = {
    "tiny": Shape(8, 256, 768, 8, 4, 32, 0, 10000.0, True),
    "tiny-untied": Shape(8, 256, 768, 8, 4, 32, 0, 10000.0, False),
    "1b": Shape(16, 2048, 8192, 32, 8, 64, 128256, 500000.0, True),
    "8b": Shape(32, 4096, 14336, 32, 8, 128, 128256, 500000.0, False),
}

# name: general.file_type, type of most matrices
MIXTURES = {"F16": (1, "F16"), "BF16": (32, "BF16"), "Q8_0": (7, "Q8_0"), "Q4_0": (2, "Q4_0"),
            "Q4_K_M": (15, "Q4_K")}

Tensor = collections.namedtuple("Tensor", "name rows columns kind mean deviation")


# --- the tokenizer of another file ---

class Reader:
    """The metadata pairs at the beginning of a GGUF file."""

    def __init__(self, path):
        with open(path, "rb") as file:
            self.data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.path, self.at = path, 0

    def take(self, form):
        form = "<" + form
        n = struct.calcsize(form)
        if self.at + n > len(self.data):
            raise ValueError(f"{self.path}: ends inside the metadata, at byte {self.at}")
        values = struct.unpack_from(form, self.data, self.at)
        self.at += n
        return values

    def one(self, form):
        return self.take(form)[0]

    def string(self):
        n = self.one("Q")
        if n > len(self.data):
            raise ValueError(f"{self.path}: a string of {n} bytes at byte {self.at}")
        return self.one(f"{n}s")

    def scalar(self, kind):
        if kind not in SCALARS:
            raise ValueError(f"{self.path}: value type {kind} at byte {self.at} is not known here")
        return SCALARS[kind]

    def value(self, kind):
        if kind == STRING:
            return self.string()
        if kind == ARRAY:
            element, n = self.take("IQ")
            if n > len(self.data):
                raise ValueError(f"{self.path}: an array of {n} values at byte {self.at}")
            if element == STRING:
                return element, [self.string() for _ in range(n)]
            return element, list(self.take(f"{n}{self.scalar(element)}"))
        return self.one(self.scalar(kind))

    def pairs(self):
        """{key: (type, value)}; the value of an array is (element type, list)."""
        magic, version, _, n_pairs = self.take("4sIQQ")
        if magic != b"GGUF" or version not in (2, 3):
            raise ValueError(f"{self.path}: expected GGUF version 2 or 3, found {magic!r} {version}")
        found = {}
        for _ in range(n_pairs):
            key, kind = self.string().decode(), self.one("I")
            found[key] = (kind, self.value(kind))
        return found


def tokenizer_pairs(path, vocab):
    """[(key, type, value)] of the file's tokenizer with `vocab` tokens (0: as many as it has), and
    their number."""
    pairs = {key: pair for key, pair in Reader(path).pairs().items() if key.startswith("tokenizer.")}
    if "tokenizer.ggml.tokens" not in pairs:
        raise ValueError(f"{path}: has no tokenizer (tokenizer.ggml.tokens)")
    have = len(pairs["tokenizer.ggml.tokens"][1][1])
    vocab = vocab or have
    if have > vocab:
        raise ValueError(f"{path}: has {have} tokens, the shape has room for {vocab}")
    padding = {"tokenizer.ggml.tokens": lambda i: b"<|unused_%d|>" % i,
               "tokenizer.ggml.scores": lambda i: -1e6,
               "tokenizer.ggml.token_type": lambda i: 5} # 5: unused
    for key, pad in padding.items():
        if key in pairs:
            kind, (element, values) = pairs[key]
            pairs[key] = (kind, (element, values + [pad(i) for i in range(have, vocab)]))
    return [(key, kind, value) for key, (kind, value) in pairs.items()], vocab


# --- the model ---

def metadata(name, seed, shape, context, file_type, tokenizer, vocab):
    return [
        ("general.architecture", STRING, b"llama"),
        ("general.type", STRING, b"model"),
        ("general.name", STRING, f"random weights {seed}, {name} shape".encode()),
        ("general.file_type", U32, file_type),
        ("general.quantization_version", U32, 2),
        ("llama.block_count", U32, shape.layers),
        ("llama.context_length", U32, context),
        ("llama.embedding_length", U32, shape.hidden),
        ("llama.feed_forward_length", U32, shape.ffn),
        ("llama.attention.head_count", U32, shape.heads),
        ("llama.attention.head_count_kv", U32, shape.kv_heads),
        ("llama.attention.key_length", U32, shape.head_size),
        ("llama.attention.value_length", U32, shape.head_size),
        ("llama.attention.layer_norm_rms_epsilon", F32, 1e-5),
        ("llama.rope.dimension_count", U32, shape.head_size),
        ("llama.rope.freq_base", F32, shape.theta),
        ("llama.vocab_size", U32, vocab),
        *tokenizer,
    ]


def more_bits(layer, n_layers):
    """Layers whose attn_v and ffn_down are Q6_K in Q4_K_M: the first and the last eighth, and
    every third of those between."""
    eighth = n_layers // 8
    return layer < eighth or layer >= 7 * n_layers // 8 or (layer - eighth) % 3 == 2


def matrix_type(mixture, name, layer, shape):
    """The type of a matrix, as llama.cpp's quantizer chooses it: in a 4-bit file the output matrix
    (the embedding, where that is tied) has Q6_K."""
    if mixture not in ("Q4_0", "Q4_K_M"):
        return MIXTURES[mixture][1]
    if name == ("token_embd.weight" if shape.tied else "output.weight"):
        return "Q6_K"
    if mixture == "Q4_K_M" and layer is not None and more_bits(layer, shape.layers) and \
            name.endswith((".attn_v.weight", ".ffn_down.weight")):
        return "Q6_K"
    return MIXTURES[mixture][1]


def tensors_of(shape, vocab, mixture):
    found = []

    def matrix(name, rows, columns, layer=None, scale=1.0):
        kind = matrix_type(mixture, name, layer, shape)
        found.append(Tensor(name, rows, columns, kind, 0.0, scale / math.sqrt(columns)))

    def norm(name):
        found.append(Tensor(name, 1, shape.hidden, "F32", 1.0, 0.02))

    q_width, kv_width = shape.heads * shape.head_size, shape.kv_heads * shape.head_size
    residual = 1 / math.sqrt(2 * shape.layers) # so that the sum of 2 * layers terms stays near 1
    matrix("token_embd.weight", vocab, shape.hidden)
    for i in range(shape.layers):
        block = f"blk.{i}."
        norm(block + "attn_norm.weight")
        matrix(block + "attn_q.weight", q_width, shape.hidden, i)
        matrix(block + "attn_k.weight", kv_width, shape.hidden, i)
        matrix(block + "attn_v.weight", kv_width, shape.hidden, i)
        matrix(block + "attn_output.weight", shape.hidden, q_width, i, residual)
        norm(block + "ffn_norm.weight")
        matrix(block + "ffn_gate.weight", shape.ffn, shape.hidden, i)
        matrix(block + "ffn_up.weight", shape.ffn, shape.hidden, i)
        matrix(block + "ffn_down.weight", shape.hidden, shape.ffn, i, residual)
    norm("output_norm.weight")
    if not shape.tied:
        matrix("output.weight", vocab, shape.hidden)
    return found


def tensor_pieces(tensor, seed):
    """The values of a tensor, float32, some rows at a time."""
    random = np.random.default_rng([seed, zlib.crc32(tensor.name.encode())])
    step = max(1, PIECE_VALUES // tensor.columns)
    for row in range(0, tensor.rows, step):
        x = random.standard_normal((min(step, tensor.rows - row), tensor.columns), np.float32)
        x *= np.float32(tensor.deviation)
        if tensor.mean:
            x += np.float32(tensor.mean)
        yield x


# --- writing ---

def string_bytes(data):
    return struct.pack("<Q", len(data)) + data


def value_bytes(kind, value):
    if kind == STRING:
        return string_bytes(value)
    if kind == ARRAY:
        element, values = value
        head = struct.pack("<IQ", element, len(values))
        if element == STRING:
            return head + b"".join(map(string_bytes, values))
        return head + struct.pack(f"<{len(values)}{SCALARS[element]}", *values)
    return struct.pack("<" + SCALARS[kind], value)


def padding(n):
    return bytes(-n % ALIGNMENT)


def header(pairs, tensors):
    parts = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(pairs))]
    for key, kind, value in pairs:
        parts += [string_bytes(key.encode()), struct.pack("<I", kind), value_bytes(kind, value)]
    offset = 0
    for t in tensors:
        sizes = [t.columns] if t.rows == 1 else [t.columns, t.rows]
        parts += [string_bytes(t.name.encode()), struct.pack("<I", len(sizes)),
                  struct.pack(f"<{len(sizes)}Q", *sizes),
                  struct.pack("<IQ", quantise.TYPES[t.kind][0], offset)]
        n = quantise.encoded_bytes(t.rows, t.columns, t.kind)
        offset += n + len(padding(n))
    data = b"".join(parts)
    return data + padding(len(data))


def write_model(path, shape_name, mixture="Q4_0", vocab_file=DEMO_MODEL, seed=1, context=8192,
                layers=None):
    """Write the file (under another name until it is whole). Returns (bytes, values)."""
    shape = SHAPES[shape_name]
    if layers is not None:
        shape = shape._replace(layers=layers)
    tokenizer, vocab = tokenizer_pairs(vocab_file, shape.vocab)
    tensors = tensors_of(shape, vocab, mixture)
    pairs = metadata(shape_name, seed, shape, context, MIXTURES[mixture][0], tokenizer, vocab)
    partial = f"{path}.partial"
    try:
        with open(partial, "wb") as file:
            file.write(header(pairs, tensors))
            for tensor in tensors:
                written = 0
                for piece in tensor_pieces(tensor, seed):
                    written += file.write(quantise.encode(piece, tensor.kind))
                file.write(padding(written))
            total = file.tell()
        os.replace(partial, path)
    except BaseException:
        pathlib.Path(partial).unlink(missing_ok=True)
        raise
    return total, sum(t.rows * t.columns for t in tensors)


def main():
    parser = argparse.ArgumentParser(description="Write a random-weight GGUF model of a named shape.")
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("out", help="the file to write")
    parser.add_argument("--type", default="Q4_0", choices=MIXTURES)
    parser.add_argument("--vocab", default=DEMO_MODEL, help="GGUF file whose tokenizer to copy")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--ctx", type=int, default=8192, help="context length to state")
    parser.add_argument("--layers", type=int, help="fewer or more layers than the shape has")
    a = parser.parse_args()
    begin = time.monotonic()
    try:
        total, values = write_model(a.out, a.shape, a.type, a.vocab, a.seed, a.ctx, a.layers)
    except (OSError, ValueError) as error:
        sys.exit(f"make_model.py: {error}")
    print(f"{a.out}: {a.shape} {a.type}, {values / 1e9:.3f} billion values, {total / 1e6:.1f} MB, "
          f"{time.monotonic() - begin:.0f} s")


if __name__ == "__main__":
    main()
