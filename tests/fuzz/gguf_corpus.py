#!/usr/bin/env python3
"""Writes the seed corpora of gguf_fuzz and safetensors_fuzz: tests/corpora/{gguf,safetensors}.

Small files of a few KB at most, each with one feature or one lie. Run it again after a change of
the formats; inputs that a fuzzer found are kept beside the seeds under names of their own.
"""
import json
import pathlib
import struct

CORPORA = pathlib.Path(__file__).resolve().parent.parent / "corpora"
U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
BLOCKS = {0: (1, 4), 1: (1, 2), 2: (32, 18), 8: (32, 34), 14: (256, 210), 30: (1, 2)}


def string(text):
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def pair(key, kind, value):
    return string(key) + struct.pack("<I", kind) + value


def u32(key, value):
    return pair(key, U32, struct.pack("<I", value))


def f32(key, value):
    return pair(key, F32, struct.pack("<f", value))


def text(key, value):
    return pair(key, STRING, string(value))


def array(key, kind, count, body):
    return pair(key, ARRAY, struct.pack("<IQ", kind, count) + body)


def tensor(name, dims, kind, offset):
    return (string(name) + struct.pack("<I", len(dims)) + struct.pack(f"<{len(dims)}Q", *dims)
            + struct.pack("<IQ", kind, offset))


def gguf(name, pairs=(), tensors=(), data=b"", version=3, alignment=32):
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(pairs))
    head += b"".join(pairs) + b"".join(tensors)
    (CORPORA / "gguf" / name).write_bytes(head + bytes(-len(head) % alignment) + data)


def safetensors(name, header, data):
    if not isinstance(header, bytes):
        header = json.dumps(header, separators=(",", ":")).encode()
    blob = struct.pack("<Q", len(header)) + header + data
    (CORPORA / "safetensors" / name).write_bytes(blob)


def entry(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def write_gguf():
    llama = [
        text("general.architecture", "llama"), text("general.name", "seed"),
        u32("llama.block_count", 1), u32("llama.embedding_length", 32),
        u32("llama.feed_forward_length", 32), u32("llama.context_length", 64),
        u32("llama.attention.head_count", 4), u32("llama.attention.head_count_kv", 2),
        f32("llama.attention.layer_norm_rms_epsilon", 1e-5), u32("llama.rope.dimension_count", 8),
        text("tokenizer.ggml.model", "llama"),
        array("tokenizer.ggml.tokens", STRING, 3, string("<unk>") + string("<s>") + string("a")),
        array("tokenizer.ggml.scores", F32, 3, struct.pack("<3f", 0, 0, -1)),
        array("tokenizer.ggml.token_type", I32, 3, struct.pack("<3i", 2, 3, 1)),
    ]
    tensors, data = [], b""
    for name, dims, kind in [
            ("token_embd.weight", (32, 3), 0), ("blk.0.attn_q.weight", (32, 32), 8),
            ("blk.0.attn_k.weight", (32, 16), 2), ("output_norm.weight", (32,), 1),
            ("output.weight", (256, 1), 14), ("blk.0.ffn_up.weight", (32, 2), 30)]:
        elems = dims[0] * (dims[1] if len(dims) > 1 else 1)
        per_block, block_bytes = BLOCKS[kind]
        tensors.append(tensor(name, dims, kind, len(data)))
        data += bytes((7 * i + 1) % 256 for i in range(elems // per_block * block_bytes))
        data += bytes(-len(data) % 32)
    gguf("llama", llama, tensors, data)
    gguf("llama_v2", llama, tensors, data, version=2)
    gguf("vocabulary", llama)
    gguf("empty")
    gguf("all_types", [
        pair("u8", U8, b"\1"), pair("i8", I8, b"\xff"), pair("u16", U16, b"\1\0"),
        pair("i16", I16, b"\1\0"), u32("u32", 5), pair("i32", I32, struct.pack("<i", -5)),
        f32("f", 1.5), pair("b", BOOL, b"\1"), text("s", ""),
        pair("u64", U64, struct.pack("<Q", 2**63)), pair("i64", I64, struct.pack("<q", -1)),
        pair("d", F64, struct.pack("<d", 0.1)),
        array("nested", ARRAY, 2, struct.pack("<IQ", U8, 2) + b"ab"
              + struct.pack("<IQ", STRING, 1) + string("x")),
        array("none", STRING, 0, b""), array("bools", BOOL, 2, b"\0\1")])
    gguf("alignment_8", [u32("general.alignment", 8)],
         [tensor("t", (3, 1, 2), 24, 0), tensor("u", (1,), 28, 8)], bytes(16), alignment=8)
    gguf("split_first", [pair("split.no", U16, b"\0\0"), pair("split.count", U16, b"\2\0"),
                         pair("split.tensors.count", I32, b"\2\0\0\0")],
         [tensor("t", (8,), 0, 0)], bytes(32))
    gguf("overlap", (), [tensor("a", (16,), 0, 0), tensor("b", (16,), 0, 32)], bytes(96))
    gguf("unknown_type", (), [tensor("a", (16,), 77, 0)], bytes(64))
    (CORPORA / "gguf" / "big_endian").write_bytes(b"GGUF" + struct.pack(">IQQ", 3, 0, 0))


def write_safetensors():
    safetensors("llama", {"__metadata__": {"format": "pt"},
                          "model.embed_tokens.weight": entry("F32", [3, 4], 0, 48),
                          "model.layers.0.self_attn.q_proj.weight": entry("BF16", [4, 4], 48, 80),
                          "model.norm.weight": entry("F16", [4], 80, 88)}, bytes(range(88)))
    safetensors("padded", b'{"a":{"dtype":"I8","shape":[],"data_offsets":[0,1]}}   ', b"\7")
    safetensors("empty", {}, b"")
    places = [("F64", 0, 32), ("I32", 32, 48), ("U8", 48, 52), ("BOOL", 52, 56),
              ("F8_E4M3", 56, 60), ("F4", 60, 62), ("F6_E2M3", 62, 65), ("C64", 65, 97)]
    safetensors("all_types", {d: entry(d, [4], a, b) for d, a, b in places}, bytes(97))
    safetensors("overlap", {"a": entry("F32", [2], 0, 8), "b": entry("F32", [2], 4, 12)}, bytes(16))
    one = b'"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
    safetensors("escapes", b'{"\\u0061\\n":{' + one + b"}", bytes(4))
    safetensors("duplicate", b'{"a":{' + one + b',"a":{' + one + b"}", bytes(4))
    safetensors("nested", b'{"a":[[[[{}]]]]}', b"")
    huge = struct.pack("<Q", 2**63) + b"{}"
    (CORPORA / "safetensors" / "huge_header").write_bytes(huge)


if __name__ == "__main__":
    for name in ("gguf", "safetensors"):
        (CORPORA / name).mkdir(parents=True, exist_ok=True)
    write_gguf()
    write_safetensors()
