"""A worker's memory: its packed weights, its KV store, its activations and 64 MB; and of the file
only its own layers."""
import pytest

import gguf_file
from conftest import model_path, private_copy
from fake_node import NodeClient
from memory_watch import MemoryWatch

MB = 1 << 20
ALLOWANCE = 64 * MB


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """24 layers of F16, 300 MB: 12.5 MB a layer."""
    shape = gguf_file.Shape(layers=24, hidden=640, ffn=2560, heads=10, kv_heads=5, context=1024)
    path = gguf_file.write_model(tmp_path_factory.mktemp("large") / "large.gguf", shape)
    return path, shape


def watched_run(shoal, worker, model, *flags):
    """Runs a text over the worker; what the worker says of itself and what was seen from outside."""
    node = NodeClient(worker.address())
    stats = []
    with MemoryWatch(worker.pid) as watch:
        answer = shoal.json("run", model, "-p", "Once upon a time", "-n", 24, "--nodes",
                            worker.address(), *flags)
        stats = node.call("Stats")
    node.close()
    assert len(answer["ids"]) > 0 and watch.samples > 5
    return answer, watch, stats


def node_of(answer, address):
    """The entry of a node in run's --json."""
    for node in answer["nodes"]:
        if node["node"] == address:
            return node
    raise AssertionError(f"no {address} in {answer['nodes']}")


def check_anonymous(answer, watch, worker):
    """Against the sizes that the node gave for what it held."""
    node = node_of(answer, worker.address())
    held = node["weight_bytes"] + node["kv_bytes"] + node["activation_bytes"]
    assert node["weight_bytes"] > 0 and node["kv_bytes"] > 0
    assert watch.anon_peak <= held + ALLOWANCE, (
        f"peak {watch.anon_peak / MB:.1f} MB, held {held / MB:.1f} MB")
    return node


def test_demo_model(shoal, processes):
    worker = processes.worker()
    answer, watch, _ = watched_run(shoal, worker, model_path("demo"))
    check_anonymous(answer, watch, worker)


@pytest.mark.slow
@pytest.mark.parametrize("layers", ["0-0", "7-18"])
def test_stage_of_a_large_model(shoal, processes, large, layers):
    """Layers 0 alone (with the embedding), and half of the file. The worker's whole resident memory,
    file pages too, stays in proportion to its layers."""
    path, shape = large
    first, last = map(int, layers.split("-"))
    worker = processes.worker()
    front = processes.worker() if first > 0 else None
    placement = f"{worker.address()}={layers}"
    if front:
        placement = f"{front.address()}=0-{first - 1},{placement}"
    nodes = ",".join(p.address() for p in (front, worker) if p)
    with MemoryWatch(worker.pid) as watch:
        answer = shoal.json("run", path, "-p", "Once upon a time", "-n", 24, "--nodes", nodes,
                            "--layers", placement)
    node = check_anonymous(answer, watch, worker)
    file_bytes = path.stat().st_size
    share = file_bytes * (last - first + 1) // shape.layers
    assert node["weight_bytes"] < share * 1.2 + 2 * MB
    own_pages = share + watch.anon_peak + ALLOWANCE # its part of the file, what it packed, programs
    assert watch.total_peak <= own_pages, (
        f"resident {watch.total_peak / MB:.0f} MB of a {file_bytes / MB:.0f} MB file, expected at "
        f"most {own_pages / MB:.0f}")


@pytest.mark.slow
def test_fetched_stage_of_a_large_model(shoal, processes, large, tmp_path):
    """What comes over the network is packed as it comes: it is never there twice."""
    copy = private_copy(large[0], tmp_path)
    worker = processes.stranger()
    with MemoryWatch(worker.pid) as watch:
        answer = shoal.json("run", copy, "-p", "Once upon a time", "-n", 8, "--nodes",
                            worker.address(), "--layers", f"{worker.address()}=0-11")
    assert check_anonymous(answer, watch, worker)["fetched"]
    copy.unlink()


@pytest.mark.slow
def test_memory_is_given_back(shoal, processes, large):
    """Ten leads, one after the other, leave a worker no larger than the second did."""
    path, _ = large
    worker = processes.worker()
    peaks = []
    for _ in range(10):
        with MemoryWatch(worker.pid) as watch:
            shoal.json("run", path, "-p", "x", "-n", 2, "--nodes", worker.address(),
                       "--layers", f"{worker.address()}=0-3")
        peaks.append(watch.anon_peak)
    assert max(peaks[5:]) <= peaks[1] + 8 * MB, [p // MB for p in peaks]
