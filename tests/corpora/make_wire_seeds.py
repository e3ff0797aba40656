#!/usr/bin/env python3
"""Writes the seeds of frame_fuzz and message_fuzz into tests/corpora/{frame,message}.

Frames are put together from docs/wire/frame.md (their checksum is left 0: the fuzz entry fills it
in), messages by protoc's Python classes. Needs protoc and python3-protobuf.
"""
import pathlib
import struct
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
PROTO = HERE.parents[1] / "proto"


def frame(updates, rows, hidden, payload_rows=None, magic=0x314C4853, version=1, codec=None):
    n = len(rows) if payload_rows is None else payload_rows
    payload = struct.pack(f"<{n * hidden}f", *(i / 8 for i in range(n * hidden)))
    codec = (1 if hidden else 0) if codec is None else codec
    header = struct.pack("<IHHQQIIIIIIQQ", magic, version, 64, 7, 3, 1, 0, len(updates), len(rows),
                         hidden, codec, len(payload), 0)
    assert len(header) == 64
    return header + b"".join(struct.pack("<4I", *x) for x in updates + rows) + payload


def frame_seeds():
    steps = [(1, 2, 0, 0), (2, 2, 5, 0), (3, 0, 6, 5), (4, 2, 0, 0)]
    rows = [(11, 0, 2, 0), (12, 1, 2, 1)]
    choose = lambda hidden, flags=0: struct.pack("<HBB", hidden, 0, flags)
    holes = [(1, 2, 0, 0), (5, 2, 7, 0), (2, 2, 5, 0)]
    yield "empty_step", choose(0) + frame([], [], 0)
    yield "first_stage", choose(0) + frame(steps, rows, 0)
    yield "trimmed", choose(0) + frame(holes, [(11, 120, 2, 1)], 0)
    yield "later_stage", choose(4) + frame(steps, rows, 4)
    yield "no_rows", choose(4) + frame(steps, [], 4)
    yield "not_sealed", choose(4, 1) + frame(steps, rows, 4)
    yield "short_payload", choose(4) + frame([], rows, 4, payload_rows=1)
    yield "wrong_magic", choose(0) + frame([], rows, 0, magic=1)
    yield "other_version", choose(0) + frame([], rows, 0, version=2)
    yield "bad_update", choose(0) + frame([(9, 0, 0, 0)], rows, 0)
    yield "bad_want", choose(0) + frame([], [(1, 1, 1, 9)], 0)
    yield "header_only", choose(0) + frame([], [], 0)[:63]


def load_proto():
    folder = tempfile.mkdtemp()
    subprocess.run(["protoc", f"--python_out={folder}", f"-I{PROTO}", "shoal.proto", "health.proto"],
                   check=True)
    sys.path.insert(0, folder)
    import health_pb2
    import shoal_pb2
    return shoal_pb2, health_pb2


def message_seeds():
    s, h = load_proto()
    identity = s.ModelIdentity(total_bytes=1 << 33, hash_low=2**63, hash_high=5)
    tensors = [s.Tensor(name=f"blk.{i}.attn_q.weight", type=8, dims=[256, 256]) for i in range(3)]
    params = s.ModelParams(architecture="llama", n_layers=5, hidden=64, norm_eps=1e-5, tied_head=True,
                           window=4096)
    yield "assign", 0, s.AssignRequest(protocol=2, version="0.1.0", epoch=2**64 - 1, path="/m.gguf",
                                       identity=identity, params=params, tensors=tensors, first=1,
                                       last=3, next="127.0.0.1:50100", fetch_port=1)
    yield "chunk", 1, s.TensorChunk(offset=1 << 20, xxh3=99, data=bytes(range(64)))
    yield "probe", 2, s.ProbeRequest(payload=b"there", answer_bytes=10)
    yield "probe_answer", 3, s.ProbeResponse(payload=b"back", handling_us=3)
    yield "fetch", 4, s.FetchTensorsRequest(identity=identity, name="output.weight", offset=4096)
    yield "describe", 5, s.DescribeResponse(version="0.1.0", protocol=2, backend="cpu",
                                            variant="avx2", numerics_id="exact-2", state=3, epoch=9)
    yield "stats", 6, s.StatsResponse(state=1, failure="stage 0: gone", steps=5, fetched=True)
    yield "assigned", 7, s.AssignResponse(fetched=True, weight_bytes=1, kv_bytes=2)
    yield "unassign", 8, s.UnassignRequest(epoch=9)
    yield "health", 9, h.HealthCheckRequest(service="shoal.v1.Node")


def main():
    for folder in ("frame", "message"):
        (HERE / folder).mkdir(exist_ok=True)
    for name, data in frame_seeds():
        (HERE / "frame" / name).write_bytes(data)
    for name, which, message in message_seeds():
        (HERE / "message" / name).write_bytes(bytes([which]) + message.SerializeToString())


if __name__ == "__main__":
    main()
