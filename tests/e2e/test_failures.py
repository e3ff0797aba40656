"""What can go wrong ends with one line that names the cause, and status 1 (failed) or 64 (usage)."""
import json
import random
import shutil
import socket
import struct
import time

import pytest

import gguf_file
from conftest import model_path, shared_file
from fake_node import FakeNode, NodeClient
from shoal_process import SLOWNESS, Background

FAILED, USAGE = 1, 64


@pytest.fixture(scope="session")
def demo():
    return model_path("demo")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A synthetic model of 200 KB: changed by the tests in memory and on disk."""
    return gguf_file.write_model(tmp_path_factory.mktemp("small") / "small.gguf", gguf_file.Shape())


@pytest.fixture(scope="module")
def slow_model(tmp_path_factory):
    """A model of 100 MB, so that a text of thousands of tokens takes a while."""
    shape = gguf_file.Shape(layers=8, hidden=512, ffn=1536, heads=8, kv_heads=4, context=4096)
    return gguf_file.write_model(tmp_path_factory.mktemp("slow") / "slow.gguf", shape, "f32")


def free_address():
    """An address that nothing listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{s.getsockname()[1]}"


@pytest.mark.parametrize("arguments, mentions", [
    (["run"], []),
    (["run", "MODEL", "--no-such-flag"], ["--no-such-flag"]),
    (["run", "MODEL", "-p", "x", "-n", "many"], ["-n", "many"]),
    (["run", "MODEL", "-p", "x", "-n"], ["-n"]),
    (["run", "MODEL", "-p", "x", "--kv", "f8"], ["--kv", "f8", "f16", "f32", "q8"]),
    (["run", "MODEL", "-p", "x", "--temp", "-1"], ["--temp", "-1"]),
    (["run", "MODEL", "-p", "x", "--top-p", "2"], ["--top-p", "2"]),
    (["run", "MODEL", "-p", "x", "--threads", "0"], ["--threads", "0"]),
    (["run", "MODEL", "another", "-p", "x"], ["another"]),
    (["worker", "--listen", "nonsense"], ["nonsense"]),
    (["worker", "--listen", "127.0.0.1:70000"], ["70000"]),
    (["serve", "MODEL", "--listen", "127.0.0.1"], ["127.0.0.1"]),
    (["tokenize", "MODEL", "--decode", "1 two 3"], ["two"]),
    (["bench", "nothing", "MODEL"], ["nothing"]),
    (["no-such-verb"], ["no-such-verb"]),
])
def test_usage(shoal, small, arguments, mentions):
    arguments = [str(small) if word == "MODEL" else word for word in arguments]
    shoal.fails(*arguments, status=USAGE, mentions=mentions)


@pytest.mark.parametrize("verb", ["run", "inspect", "tokenize", "serve", "plan"])
def test_missing_file(shoal, tmp_path, verb):
    path = tmp_path / "no-such-model.gguf"
    extra = {"run": ["-p", "x"], "tokenize": ["x"]}.get(verb, [])
    shoal.fails(verb, path, *extra, mentions=["no-such-model.gguf"])


def test_not_a_model(shoal, tmp_path):
    path = tmp_path / "text.gguf"
    path.write_text("This is no model at all, but a text that is long enough for a header.\n" * 9)
    shoal.fails("run", path, "-p", "x", mentions=["text.gguf", "GGUF"])
    shoal.fails("run", tmp_path, "-p", "x", mentions=[str(tmp_path)])


@pytest.mark.parametrize("keep", [0, 3, 20, 100, 5000, -33, -1])
def test_truncated(shoal, small, tmp_path, keep):
    """At every kind of place: in the magic, the counts, metadata, the tensor table, the data."""
    path = tmp_path / "cut.gguf"
    path.write_bytes(small.read_bytes()[:keep] if keep else b"")
    shoal.fails("run", path, "-p", "x", "-n", 1, mentions=["cut.gguf"])


def survives(shoal, path):
    """A damaged file is refused with a line, or happens to be a model still; never a crash."""
    result = shoal.run("run", path, "-p", "x", "-n", 2, timeout=20)
    assert result.status in (0, FAILED), f"{path}: status {result.status}\n{result.stderr}"
    if result.status == FAILED:
        result.error_line()
    return result.status


@pytest.mark.parametrize("seed", range(30))
def test_flipped_bits(shoal, small, tmp_path, seed):
    """One to four bits anywhere before the tensor data."""
    chance = random.Random(seed)
    data = bytearray(small.read_bytes())
    header_bytes = len(gguf_file.header(gguf_file.model_metadata(gguf_file.Shape()),
                                        gguf_file.model_tensors(gguf_file.Shape())))
    for _ in range(chance.randint(1, 4)):
        bit = chance.randrange(header_bytes * 8)
        data[bit // 8] ^= 1 << bit % 8
    path = tmp_path / "flipped.gguf"
    path.write_bytes(data)
    survives(shoal, path)


@pytest.mark.parametrize("lies", [
    {"n_tensors": 2**63}, {"n_tensors": 2**32}, {"n_tensors": 1000}, {"n_tensors": 0},
    {"n_metadata": 2**63}, {"n_metadata": 1000}, {"n_metadata": 1},
], ids=str)
def test_lying_counts(shoal, tmp_path, lies):
    shape = gguf_file.Shape()
    path = gguf_file.write(tmp_path / "lies.gguf", gguf_file.model_metadata(shape),
                           gguf_file.model_tensors(shape), **lies)
    shoal.fails("run", path, "-p", "x", "-n", 1, mentions=["lies.gguf"])


@pytest.mark.parametrize("length", [2**64 - 1, 2**63, 2**40, 10**6])
def test_lying_string_length(shoal, tmp_path, length):
    path = tmp_path / "string.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + struct.pack("<Q", length) + b"key")
    shoal.fails("inspect", path, mentions=["string.gguf"])


def changed_tensors(change):
    tensors = gguf_file.model_tensors(gguf_file.Shape())
    return [changed for tensor in tensors for changed in [change(tensor)] if changed]


@pytest.mark.parametrize("name", ["blk.1.ffn_down.weight", "output_norm.weight",
                                  "token_embd.weight", "blk.2.attn_norm.weight"])
def test_missing_tensor(shoal, tmp_path, name):
    path = gguf_file.write(tmp_path / "missing.gguf", gguf_file.model_metadata(gguf_file.Shape()),
                           changed_tensors(lambda t: t if t[0] != name else None))
    shoal.fails("run", path, "-p", "x", "-n", 1, mentions=[name])


@pytest.mark.parametrize("name, dimensions", [
    ("blk.0.attn_q.weight", [64, 32]), ("blk.1.attn_k.weight", [64, 64]),
    ("blk.2.ffn_gate.weight", [128, 64]), ("output.weight", [64, 100]),
    ("blk.0.attn_norm.weight", [32]),
])
def test_wrong_shape(shoal, tmp_path, name, dimensions):
    """Expected and found are both said."""
    path = gguf_file.write(
        tmp_path / "shape.gguf", gguf_file.model_metadata(gguf_file.Shape()),
        changed_tensors(lambda t: (name, t[1], dimensions) if t[0] == name else t))
    line = shoal.fails("run", path, "-p", "x", "-n", 1, mentions=[name])
    assert str(dimensions[0]) in line, line


def test_unknown_architecture(shoal, tmp_path):
    metadata = [(key, kind, "perceptron" if key == "general.architecture" else value)
                for key, kind, value in gguf_file.model_metadata(gguf_file.Shape())]
    path = gguf_file.write(tmp_path / "arch.gguf", metadata,
                           gguf_file.model_tensors(gguf_file.Shape()))
    shoal.fails("run", path, "-p", "x", "-n", 1, mentions=["perceptron"])


@pytest.fixture
def hf_folder(tmp_path):
    """A copy of the story model that may be damaged, and a function that edits its config."""
    folder = tmp_path / "story"
    shutil.copytree(shared_file("models", "story-656k-hf"), folder)
    for path in [folder, *folder.iterdir()]:
        path.chmod(0o755 if path.is_dir() else 0o644)

    def edit(**changes):
        config = json.loads((folder / "config.json").read_text("utf-8"))
        config.update(changes)
        (folder / "config.json").write_text(json.dumps(config), "utf-8")
        return folder
    return edit


@pytest.mark.parametrize("changes, mentions", [
    ({"attention_soft_cap": 30.0}, ["attention_soft_cap"]),
    ({"hidden_act": "relu"}, ["hidden_act", "relu"]),
    ({"rope_scaling": {"type": "spiral", "factor": 2.0}}, ["spiral"]),
    ({"hidden_size": 256}, ["128"]),
    ({"hidden_size": "wide"}, ["hidden_size"]),
    ({"num_hidden_layers": 10**9}, ["layers", "1000000000"]),
    ({"num_hidden_layers": 3}, ["2"]),
    ({"num_key_value_heads": 3}, ["3"]),
    ({"architectures": ["PerceptronForCausalLM"], "model_type": "perceptron"}, ["erceptron"]),
], ids=lambda v: str(v)[:40])
def test_bad_configuration(shoal, hf_folder, changes, mentions):
    shoal.fails("run", hf_folder(**changes), "-p", "x", "-n", 1, mentions=mentions)


def test_damaged_safetensors(shoal, hf_folder):
    folder = hf_folder()
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    for damaged in (whole[:4], whole[:1000], whole[:-1], struct.pack("<Q", 2**62) + whole[8:],
                    whole[:8] + b"[" + whole[9:]):
        path.write_bytes(damaged)
        shoal.fails("run", folder, "-p", "x", "-n", 1, mentions=["model.safetensors"])
    path.unlink()
    shoal.fails("run", folder, "-p", "x", "-n", 1)


def test_port_in_use(shoal, small, processes):
    address = processes.worker().address()
    shoal.fails("worker", "--listen", address, mentions=[address])
    shoal.fails("serve", small, "--listen", address, mentions=[address])


@pytest.mark.parametrize("verb", ["worker", "serve"])
def test_other_addresses_need_insecure(shoal, small, verb):
    """Without authentication nothing but loopback is bound unless it is asked for."""
    model = [small] if verb == "serve" else []
    line = shoal.run(verb, *model, "--listen", "0.0.0.0:0").error_line()
    assert "--insecure" in line


@pytest.mark.parametrize("verb", ["run", "serve", "plan"])
def test_unreachable_node(shoal, small, verb):
    address = free_address()
    started = time.monotonic()
    extra = {"run": ["-p", "x"], "serve": ["--listen", "127.0.0.1:0"]}.get(verb, [])
    result = shoal.run(verb, small, *extra, "--nodes", address)
    assert result.status == FAILED
    assert address in result.stderr and result.stderr.count("\n") == 1, result.stderr
    assert time.monotonic() - started < 8 * SLOWNESS


@pytest.mark.parametrize("nodes", ["nonsense", "127.0.0.1:0", "127.0.0.1:99999", ",", "a:1,,b:2"])
def test_bad_node_list(shoal, small, nodes):
    result = shoal.run("run", small, "-p", "x", "--nodes", nodes)
    assert result.status in (FAILED, USAGE)
    result.error_line()


@pytest.mark.parametrize("layers", ["{0}=0-9", "{0}=2-1", "{0}=x", "{0}=0-0,{0}=0-1",
                                    "127.0.0.1:1=0-1", "{0}", "{0}=1-1"])
def test_bad_layers(shoal, small, processes, layers):
    """A layer that is not there, twice given, given to a stranger, or left out at the start."""
    address = processes.workers(1)[0]
    result = shoal.run("run", small, "-p", "x", "-n", 1, "--nodes", address,
                       "--layers", layers.format(address))
    assert result.status in (FAILED, USAGE), result.stdout
    result.error_line()


def test_node_that_speaks_something_else(shoal, small):
    """A port where something listens that does not answer gRPC."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        shoal.fails("run", small, "-p", "x", "--nodes", address, mentions=[address])


@pytest.mark.parametrize("difference", [{"version": "9.9.9", "protocol": 1},
                                        {"version": None, "protocol": 4711}], ids=str)
def test_worker_of_another_version(shoal, small, processes, difference):
    """Described as a real worker does, but for the version or the protocol."""
    real = NodeClient(processes.workers(1)[0])
    described = real.call("Describe")
    real.close()
    ours = described.version
    described.protocol = difference["protocol"]
    if difference["version"]:
        described.version = difference["version"]
    node = FakeNode(**{field.name: value for field, value in described.ListFields()})
    try:
        line = shoal.fails("run", small, "-p", "x", "--nodes", node.address,
                           mentions=[node.address])
    finally:
        node.stop()
    assert ("9.9.9" in line and ours in line) or "4711" in line, line


def test_too_long_prompt(shoal, small):
    """The synthetic model has 256 positions; found and allowed are both said."""
    line = shoal.fails("run", small, "-p", "a" * 1000, "-n", 1, mentions=["256"])
    assert "100" in line, line


def test_worker_killed_in_mid_text(shoal, slow_model, processes, tmp_path):
    """The lead says so within 5 s; the other worker goes on and serves the next lead."""
    doomed, other = processes.worker(), processes.worker()
    nodes = [doomed.address(), other.address()]
    lead = Background(shoal.binary, ["run", slow_model, "-p", "x", "-n", 4000, "--nodes",
                                     ",".join(nodes)], tmp_path, "lead")
    try:
        wait_for_text(lead)
        doomed.kill()
        killed = time.monotonic()
        status = lead.process.wait(30 * SLOWNESS)
        took = time.monotonic() - killed
    finally:
        if lead.process.poll() is None:
            lead.kill()
    assert status == FAILED
    assert took < 5 * SLOWNESS, f"the lead took {took:.1f} s to notice"
    last_line = lead.err.read_text("utf-8").splitlines()[-1]
    assert last_line.startswith("shoal run: ") and nodes[0] in last_line, last_line
    assert shoal.json("run", slow_model, "-p", "x", "-n", 4, "--nodes", nodes[1])["ids"]


def wait_for_text(lead):
    deadline = time.monotonic() + 60 * SLOWNESS
    while lead.out.stat().st_size == 0:
        assert time.monotonic() < deadline and lead.process.poll() is None, lead.printed()
        time.sleep(0.02)


def test_lead_killed_in_mid_text(shoal, slow_model, processes, tmp_path):
    """Its worker is free again for the next one."""
    worker = processes.worker()
    lead = Background(shoal.binary, ["run", slow_model, "-p", "x", "-n", 4000, "--nodes",
                                     worker.address()], tmp_path, "lead")
    try:
        wait_for_text(lead)
    finally:
        lead.kill()
    expected = shoal.json("run", slow_model, "-p", "x", "-n", 8)["ids"]
    found = shoal.json("run", slow_model, "-p", "x", "-n", 8, "--nodes", worker.address())["ids"]
    assert found == expected


def test_changed_model_file(shoal, small, processes, tmp_path):
    """A worker keeps nothing of a file that has another content now under the same path."""
    path = tmp_path / "model.gguf"
    path.write_bytes(small.read_bytes())
    address = processes.workers(1)[0]
    first = shoal.json("run", path, "-p", "x", "-n", 8, "--nodes", address)["ids"]
    gguf_file.write(path, gguf_file.model_metadata(gguf_file.Shape()),
                    gguf_file.model_tensors(gguf_file.Shape()), seed=2)
    alone = shoal.json("run", path, "-p", "x", "-n", 8)["ids"]
    again = shoal.json("run", path, "-p", "x", "-n", 8, "--nodes", address)["ids"]
    assert again == alone
    assert alone != first
