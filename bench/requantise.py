#!/usr/bin/env python3
"""Write a GGUF model again with its matrices in another type.

  requantise.py IN.gguf OUT.gguf --type Q4_0 [--float OUT2.gguf]

Matrices (tensors of two dimensions) go through float32 into the type, vectors stay. With --float a
second file holds what the first one's values are, as F32: what a program computes with the two differs
only by what it does to activations. For small models: a tensor at a time is in memory. Needs numpy.
"""
import argparse
import collections
import struct
import sys

try:
    import numpy as np
except ImportError:
    sys.exit("requantise.py: needs numpy (pip install numpy, or apt install python3-numpy)")

import dequantise
import make_model
import quantise

KINDS = {number: name for name, (number, _, _) in quantise.TYPES.items()}
Source = collections.namedtuple("Source", "name rows columns kind offset")


def directory(reader, n_tensors):
    """[Source] of a file whose pairs have been read; offsets are those of the file."""
    found = []
    for _ in range(n_tensors):
        name, n_dims = reader.string().decode(), reader.one("I")
        if not 1 <= n_dims <= 2:
            raise ValueError(f"{reader.path}: {name} has {n_dims} dimensions, expected 1 or 2")
        sizes, (kind, offset) = reader.take(f"{n_dims}Q"), reader.take("IQ")
        if kind not in KINDS:
            raise ValueError(f"{reader.path}: {name} is of type {kind}, which is not known here")
        rows = sizes[1] if n_dims == 2 else 1
        found.append(Source(name, rows, sizes[0], KINDS[kind], offset))
    start = -(-reader.at // make_model.ALIGNMENT) * make_model.ALIGNMENT
    return [s._replace(offset=start + s.offset) for s in found]


def values(reader, source):
    n = quantise.encoded_bytes(source.rows, source.columns, source.kind)
    data = reader.data[source.offset:source.offset + n]
    if len(data) != n:
        raise ValueError(f"{reader.path}: ends inside {source.name}")
    return dequantise.decode(data, source.rows, source.columns, source.kind)


def write(path, pairs, tensors, data):
    with open(path, "wb") as file:
        file.write(make_model.header(pairs, tensors))
        for piece in data:
            file.write(piece + make_model.padding(len(piece)))


def requantise(source_path, path, kind, float_path=None):
    reader = make_model.Reader(source_path)
    n_tensors = struct.unpack_from("<Q", reader.data, 8)[0]
    pairs = [(key, t, value) for key, (t, value) in reader.pairs().items()]
    sources = directory(reader, n_tensors)
    tensors = [make_model.Tensor(s.name, s.rows, s.columns, kind if s.rows > 1 else s.kind, 0, 0)
               for s in sources]
    coded = [quantise.encode(values(reader, s), t.kind) for s, t in zip(sources, tensors)]
    write(path, pairs, tensors, coded)
    if float_path is not None:
        floats = [dequantise.decode(data, t.rows, t.columns, t.kind)
                  for data, t in zip(coded, tensors)]
        write(float_path, pairs, [t._replace(kind="F32") for t in tensors],
              [x.astype("<f4").tobytes() for x in floats])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("source")
    parser.add_argument("out")
    parser.add_argument("--type", default="Q4_0", choices=sorted(quantise.TYPES))
    parser.add_argument("--float", metavar="OUT2", help="the same values as F32")
    options = parser.parse_args()
    try:
        requantise(options.source, options.out, options.type, options.float)
    except (OSError, ValueError) as error:
        sys.exit(f"requantise.py: {error}")


if __name__ == "__main__":
    main()
