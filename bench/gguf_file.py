"""Writes GGUF v3 files of a LLaMA-shaped model with weights from a seed; no numpy needed.

The vocabulary is a SentencePiece one of 3 special tokens, 256 byte tokens and the printable
characters: enough to tokenize any text. Weights repeat one block of random values, shifted from
tensor to tensor, so that a file of hundreds of megabytes is written in a second.

Used by the programs of bench/ that need a model of some shape and no values, and by the end-to-end
tests. Tests of hostile files change what is written: `model_tensors` and `model_metadata` give plain lists
to edit before `write` puts them down, and `write` can be told to lie about counts.
"""
import random
import struct

U32, F32, STRING, ARRAY = 4, 6, 8, 9
SCALARS = {U32: "I", F32: "f"}
TYPES = {"f32": (0, 4), "f16": (1, 2)} # GGUF number, bytes of an element
ALIGNMENT = 32


class Shape:
    """`head_size` is hidden / heads where nothing else is said."""

    def __init__(self, layers=3, hidden=64, ffn=128, heads=4, kv_heads=2, context=256, head_size=None):
        self.layers, self.hidden, self.ffn = layers, hidden, ffn
        self.heads, self.kv_heads, self.context = heads, kv_heads, context
        self.head_size = hidden // heads if head_size is None else head_size

    @property
    def q_width(self):
        return self.head_size * self.heads

    @property
    def kv_width(self):
        return self.head_size * self.kv_heads


def vocabulary():
    """Lists of pieces, scores and types (GGUF numbers: 1 normal, 2 unknown, 3 control, 6 byte)."""
    pieces, types = ["<unk>", "<s>", "</s>"], [2, 3, 3]
    for byte in range(256):
        pieces.append(f"<0x{byte:02X}>")
        types.append(6)
    for character in ["▁", *map(chr, range(33, 127))]:
        pieces.append(character)
        types.append(1)
    return pieces, [0.0] * len(pieces), types


def model_metadata(shape):
    """[(key, type, value)]; an array's value is (element type, list)."""
    pieces, scores, types = vocabulary()
    return [
        ("general.architecture", STRING, "llama"),
        ("general.name", STRING, "synthetic"),
        ("llama.block_count", U32, shape.layers),
        ("llama.embedding_length", U32, shape.hidden),
        ("llama.feed_forward_length", U32, shape.ffn),
        ("llama.attention.head_count", U32, shape.heads),
        ("llama.attention.head_count_kv", U32, shape.kv_heads),
        ("llama.attention.key_length", U32, shape.head_size),
        ("llama.attention.value_length", U32, shape.head_size),
        ("llama.rope.dimension_count", U32, shape.head_size),
        ("llama.context_length", U32, shape.context),
        ("llama.vocab_size", U32, len(pieces)),
        ("llama.attention.layer_norm_rms_epsilon", F32, 1e-5),
        ("llama.rope.freq_base", F32, 10000.0),
        ("tokenizer.ggml.model", STRING, "llama"),
        ("tokenizer.ggml.tokens", ARRAY, (STRING, pieces)),
        ("tokenizer.ggml.scores", ARRAY, (F32, scores)),
        ("tokenizer.ggml.token_type", ARRAY, (U32, types)),
        ("tokenizer.ggml.bos_token_id", U32, 1),
        ("tokenizer.ggml.eos_token_id", U32, 2),
    ]


def model_tensors(shape, dtype="f16"):
    """[(name, dtype, [columns, rows])], innermost first as GGUF states them."""
    h, vocab = shape.hidden, len(vocabulary()[0])
    tensors = [("token_embd.weight", dtype, [h, vocab])]
    for i in range(shape.layers):
        tensors += [
            (f"blk.{i}.attn_norm.weight", "f32", [h]),
            (f"blk.{i}.attn_q.weight", dtype, [h, shape.q_width]),
            (f"blk.{i}.attn_k.weight", dtype, [h, shape.kv_width]),
            (f"blk.{i}.attn_v.weight", dtype, [h, shape.kv_width]),
            (f"blk.{i}.attn_output.weight", dtype, [shape.q_width, h]),
            (f"blk.{i}.ffn_norm.weight", "f32", [h]),
            (f"blk.{i}.ffn_gate.weight", dtype, [h, shape.ffn]),
            (f"blk.{i}.ffn_up.weight", dtype, [h, shape.ffn]),
            (f"blk.{i}.ffn_down.weight", dtype, [shape.ffn, h]),
        ]
    return [*tensors, ("output_norm.weight", "f32", [h]), ("output.weight", dtype, [h, vocab])]


def string_bytes(text):
    data = text.encode("utf-8")
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


def tensor_bytes(tensor):
    elements = TYPES[tensor[1]][1]
    for dimension in tensor[2]:
        elements *= dimension
    return elements


def padded(n):
    return -(-n // ALIGNMENT) * ALIGNMENT


def random_block(dtype, seed, n=1 << 18):
    """n weights around 0; small enough that many layers do not overflow."""
    values = random.Random(seed)
    return struct.pack(f"<{n}{'e' if dtype == 'f16' else 'f'}",
                       *(values.gauss(0.0, 0.05) for _ in range(n)))


def header(metadata, tensors, n_tensors=None, n_metadata=None):
    """Everything before the data; n_tensors and n_metadata may lie."""
    parts = [b"GGUF", struct.pack("<IQQ", 3, len(tensors) if n_tensors is None else n_tensors,
                                  len(metadata) if n_metadata is None else n_metadata)]
    for key, kind, value in metadata:
        parts += [string_bytes(key), struct.pack("<I", kind), value_bytes(kind, value)]
    offset = 0
    for tensor in tensors:
        name, dtype, dimensions = tensor
        parts += [string_bytes(name), struct.pack("<I", len(dimensions)),
                  struct.pack(f"<{len(dimensions)}Q", *dimensions),
                  struct.pack("<IQ", TYPES[dtype][0], offset)]
        offset += padded(tensor_bytes(tensor))
    data = b"".join(parts)
    return data + bytes(padded(len(data)) - len(data))


def write(path, metadata, tensors, seed=1, **lies):
    blocks = {dtype: random_block(dtype, seed) for dtype in {t[1] for t in tensors}}
    with open(path, "wb") as file:
        file.write(header(metadata, tensors, **lies))
        for i, tensor in enumerate(tensors):
            n, block = tensor_bytes(tensor), blocks[tensor[1]]
            shift = i * 4 * 997 % len(block)
            turned = block[shift:] + block[:shift]
            for start in range(0, n, len(turned)):
                file.write(turned[:min(len(turned), n - start)])
            file.write(bytes(padded(n) - n))
    return path


def write_model(path, shape, dtype="f16"):
    return write(path, model_metadata(shape), model_tensors(shape, dtype))
