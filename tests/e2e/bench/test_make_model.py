"""bench/make_model.py: its block formats, its files, and that this program reads and runs them."""
import pathlib
import subprocess
import sys

import pytest

from conftest import ROOT, model_path

np = pytest.importorskip("numpy", reason="numpy is not installed: bench/make_model.py needs it")
sys.path.insert(0, str(ROOT / "bench"))
import make_model
import quantise


def half(data):
    return float(np.frombuffer(data, "<f2")[0])


def signed(byte):
    return byte - 256 if byte > 127 else byte


# --- readers, written from docs/formats/gguf.md, one value at a time ---

def read_q8_0(block):
    return [half(block[:2]) * signed(c) for c in block[2:]]


def read_q4_0(block):
    d = half(block[:2])
    return [d * ((block[2 + i % 16] >> 4 * (i // 16) & 15) - 8) for i in range(32)]


def q4_k_scale(packed, j):
    """(scale, minimum) of group j from the 12 bytes."""
    if j < 4:
        return packed[j] & 63, packed[j + 4] & 63
    return (packed[j + 4] & 15 | packed[j - 4] >> 6 << 4, packed[j + 4] >> 4 | packed[j] >> 6 << 4)


def read_q4_k(block):
    d, dmin, values = half(block[:2]), half(block[2:4]), []
    for i in range(256):
        scale, minimum = q4_k_scale(block[4:16], i // 32)
        code = block[16 + i // 64 * 32 + i % 32] >> 4 * (i // 32 % 2) & 15
        values.append(d * scale * code - dmin * minimum)
    return values


def read_q6_k(block):
    d, values = half(block[208:]), []
    for i in range(256):
        part, quarter, l = i // 128, i // 32 % 4, i % 32
        low = block[64 * part + 32 * (quarter % 2) + l] >> 4 * (quarter // 2) & 15
        high = block[128 + 32 * part + l] >> 2 * quarter & 3
        values.append(d * signed(block[192 + i // 16]) * ((low | high << 4) - 32))
    return values


READERS = {
    "F32": lambda b: [float(np.frombuffer(b, "<f4")[0])],
    "F16": lambda b: [half(b)],
    "BF16": lambda b: [float(np.frombuffer(b"\0\0" + b, "<f4")[0])],
    "Q8_0": read_q8_0, "Q4_0": read_q4_0, "Q4_K": read_q4_k, "Q6_K": read_q6_k,
}

# Largest error relative to the largest value of a block: half a step of the codes, and what a
# rounded scale adds.
BOUNDS = {"F32": 0, "F16": 2**-11, "BF16": 2**-8, "Q8_0": 0.5 / 127 * 1.01, "Q4_0": 1.01 / 8,
          "Q4_K": 1.2 / 15, "Q6_K": 1.01 / 32}


def read(data, kind):
    _, _, size = quantise.TYPES[kind]
    values = [READERS[kind](data[at:at + size]) for at in range(0, len(data), size)]
    return np.array(values, np.float64)


@pytest.mark.parametrize("kind", quantise.TYPES)
def test_block_format(kind):
    x = np.random.default_rng(7).standard_normal((6, 512)).astype(np.float32) * 0.05
    x[1], x[2], x[3, 100:300] = np.abs(x[1]), -np.abs(x[2]), 0
    data = quantise.encode(x, kind)
    assert len(data) == quantise.encoded_bytes(6, 512, kind)
    block = quantise.TYPES[kind][1]
    wanted, found = x.reshape(-1, block), read(data, kind)
    most = np.abs(wanted).max(axis=1, keepdims=True)
    assert (np.abs(found - wanted) <= BOUNDS[kind] * most + 1e-12).all()
    assert not np.array_equal(found, np.zeros_like(found))


@pytest.mark.parametrize("kind", quantise.TYPES)
def test_zeros_stay_zeros(kind):
    assert not read(quantise.encode(np.zeros((1, 256), np.float32), kind), kind).any()


def test_bf16_rounds_ties_to_even():
    bits = np.array([[0x3f808000, 0x3f818000, 0x3f808001, 0xbf807fff]], np.uint32)
    found = np.frombuffer(quantise.encode(bits.view(np.float32), "BF16"), "<u2")
    assert found.tolist() == [0x3f80, 0x3f82, 0x3f81, 0xbf80]


def test_part_of_a_block_is_refused():
    with pytest.raises(ValueError, match="whole blocks"):
        quantise.encode(np.zeros((1, 128), np.float32), "Q4_K")


def test_mixture_of_q4_k_m():
    """The layers with more bits, for the 16 and the 32 layers of the named shapes."""
    assert [i for i in range(16) if make_model.more_bits(i, 16)] == [0, 1, 4, 7, 10, 13, 14, 15]
    assert [i for i in range(32) if make_model.more_bits(i, 32)] == [
        0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for kind in make_model.MIXTURES:
        make_model.write_model(folder / f"{kind}.gguf", "tiny", kind,
                               vocab_file=model_path("demo"))
    return folder


EXPECTED_TYPES = {
    "F16": {"F16": 57}, "BF16": {"BF16": 57}, "Q8_0": {"Q8_0": 57}, "Q4_0": {"Q4_0": 56, "Q6_K": 1},
    "Q4_K_M": {"Q4_K": 48, "Q6_K": 9},
}


@pytest.mark.parametrize("kind", make_model.MIXTURES)
def test_file_is_read(shoal, models, kind):
    answer = shoal.json("inspect", models / f"{kind}.gguf")
    shape, found = make_model.SHAPES["tiny"], answer["model"]
    for key in ("layers", "hidden", "ffn", "heads", "kv_heads", "head_size"):
        assert found[key] == getattr(shape, key), key
    assert found["tied_head"] is True
    types = {name: entry["tensors"] for name, entry in answer["types"].items()}
    assert types == {"F32": 17, **EXPECTED_TYPES[kind]}
    assert not list(models.glob("*.partial"))


def next_logits(shoal, path):
    found = shoal.json("eval", path, "--next", "The old house stood", "--top", 4096, "--kv", "f32")
    return np.array([entry["logit"] for entry in sorted(found["next"], key=lambda x: x["id"])])


# Of the difference between the logits and those of F16 weights, relative to their size. Weights
# are the same values in every type, so a wrong layout shows as 1.4: unrelated logits.
@pytest.mark.parametrize("kind, bound", [("BF16", 0.03), ("Q8_0", 0.06), ("Q4_0", 0.5),
                                         ("Q4_K_M", 0.5)])
def test_types_mean_the_same_model(shoal, models, kind, bound):
    answer = shoal.json("inspect", models / f"{kind}.gguf")
    if not answer["runnable"]:
        pytest.skip(answer["reason"])
    wanted = next_logits(shoal, models / "F16.gguf")
    found = next_logits(shoal, models / f"{kind}.gguf")
    assert 0.2 < np.std(wanted) < 20
    difference = np.sqrt(np.mean((found - wanted) ** 2) / np.mean(wanted ** 2))
    assert 0 < difference < bound


def test_tokenizer_is_the_donors(shoal, models):
    text = "It was the best of times."
    assert (shoal.ok("tokenize", models / "Q8_0.gguf", text).stdout ==
            shoal.ok("tokenize", model_path("demo"), text).stdout)


def test_padded_vocabulary():
    pairs, vocab = make_model.tokenizer_pairs(model_path("demo"), 5000)
    found = {key: value for key, _, value in pairs}
    tokens = found["tokenizer.ggml.tokens"][1]
    assert vocab == len(tokens) == len(set(tokens)) == 5000
    assert found["tokenizer.ggml.token_type"][1][-1] == 5


def script(*arguments):
    return subprocess.run([sys.executable, ROOT / "bench" / "make_model.py", *map(str, arguments)],
                          capture_output=True, text=True, timeout=200, check=False)


def test_program(shoal, tmp_path):
    """Another seed is another model; an untied head is written."""
    answers = []
    for seed in (1, 2):
        path = tmp_path / f"{seed}.gguf"
        done = script("tiny-untied", path, "--type", "Q4_0", "--seed", seed, "--layers", 2,
                      "--vocab", model_path("demo"))
        assert done.returncode == 0, done.stderr
        answers.append(shoal.json("inspect", path))
    ends = [(tmp_path / f"{seed}.gguf").read_bytes()[-100000:] for seed in (1, 2)]
    assert ends[0] != ends[1] and answers[0]["identity"] != answers[1]["identity"]
    assert answers[0]["model"]["tied_head"] is False and answers[0]["model"]["layers"] == 2
    assert answers[0]["types"]["Q6_K"]["tensors"] == 1


@pytest.mark.parametrize("content, says", [
    (None, "No such file"), (b"GGUF", "ends inside"), (b"none" + bytes(40), "expected GGUF"),
    (b"GGUF" + bytes.fromhex("03000000") + bytes(16), "no tokenizer"),
    (b"GGUF" + bytes.fromhex("03000000") + bytes(8) + b"\1" + bytes(7) + b"\xff" * 8, "a string of"),
])
def test_bad_donors(tmp_path, content, says):
    donor = tmp_path / "donor.gguf"
    if content is not None:
        donor.write_bytes(content)
    done = script("tiny", tmp_path / "out.gguf", "--vocab", donor)
    assert done.returncode == 1 and says in done.stderr and "Traceback" not in done.stderr
    assert list(tmp_path.glob("out*")) == []


def test_vocabulary_too_large_for_the_shape(tmp_path):
    with pytest.raises(ValueError, match="room for 100"):
        make_model.tokenizer_pairs(pathlib.Path(model_path("demo")), 100)
