"""Rings of real processes on the simulated backend: a wrong block, a lost or a swapped row anywhere
between the processes would change the tokens."""
import concurrent.futures
import json
import urllib.request

import pytest

import gguf_file
from fake_node import NodeClient

SIM = ["--backend", "sim", "--threads", 1]
PROMPTS = [f"{'a few words and then ' * (i % 4)}number {i}" for i in range(7)]
N_TOKENS = 24


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    shape = gguf_file.Shape(layers=4, hidden=64, ffn=64, heads=2, kv_heads=1, context=512)
    return gguf_file.write_model(tmp_path_factory.mktemp("sim") / "sim.gguf", shape)


@pytest.fixture(scope="module")
def workers(shared_processes):
    return shared_processes.workers(3, *SIM)


def generate(shoal, model, prompt, *flags):
    return shoal.json("run", model, "-p", prompt, "-n", N_TOKENS, "--ignore-eos", *SIM, *flags)


@pytest.fixture(scope="module")
def alone(shoal, model):
    """What each prompt is followed by, one process, one request at a time."""
    return [generate(shoal, model, prompt) for prompt in PROMPTS]


@pytest.mark.parametrize("n_workers", [1, 2, 3])
def test_stages(shoal, model, workers, alone, n_workers):
    assert len({tuple(answer["ids"]) for answer in alone}) == len(PROMPTS) # they do depend on the prompt
    for prompt, expected in list(zip(PROMPTS, alone))[:3]:
        found = generate(shoal, model, prompt, "--nodes", ",".join(workers[:n_workers]))
        assert found["ids"] == expected["ids"]


def complete(server, prompt):
    body = {"prompt": prompt, "max_tokens": N_TOKENS, "temperature": 0, "ignore_eos": True}
    request = urllib.request.Request(f"{server.base_url()}/v1/completions", json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)["choices"][0]["text"]


@pytest.mark.parametrize("n_workers, flights, rows", [(0, 1, 512), (0, 3, 5), (1, 2, 512), (1, 3, 7),
                                                      (2, 4, 512), (3, 1, 512), (3, 5, 16)])
def test_flights(shoal, processes, model, workers, alone, n_workers, flights, rows):
    """All requests at once, in rings of 1 to 4 stages with 1 to 5 steps on their way."""
    nodes = ["--nodes", ",".join(workers[:n_workers])] if n_workers else []
    server = processes.server(model, *SIM, *nodes, "--flights", flights, "--batch", rows, "--slots", 4)
    with concurrent.futures.ThreadPoolExecutor(len(PROMPTS)) as pool:
        found = list(pool.map(lambda prompt: complete(server, prompt), PROMPTS))
    assert found == [answer["text"] for answer in alone]


def test_a_step_takes_its_time(shoal, processes, model):
    nodes = processes.workers(2, *SIM, "--sim-step-us", 7000)
    answer = shoal.json("bench", "model", model, "-p", 4, "-n", 5, "-r", 1, *SIM, "--sim-step-us", 3000,
                        "--nodes", ",".join(nodes))
    assert answer["batches"][0]["decode"]["runs"][0]["step_us"] >= 17000
    assert "gb_s" not in answer["batches"][0]["decode"] # no bytes are read


def test_backends_do_not_mix(shoal, processes, model, workers):
    described = NodeClient(workers[0]).call("Describe")
    assert (described.backend, described.numerics_id) == ("sim", "sim-1")
    computing = processes.workers(1)[0]
    assert NodeClient(computing).call("Describe").backend == "cpu"
    shoal.fails("run", model, "-p", "x", "-n", 1, "--nodes", workers[0], mentions=["sim-1", "exact-"])
    shoal.fails("run", model, "-p", "x", "-n", 1, *SIM, "--nodes", computing,
                mentions=["sim-1", "exact-"])


@pytest.mark.parametrize("verb", [["run", "MODEL", "-p", "x", "-n", 1], ["worker"]])
def test_only_the_simulation_takes_a_time(shoal, model, verb):
    arguments = [model if word == "MODEL" else word for word in verb]
    shoal.fails(*arguments, "--sim-step-us", 5, mentions=["5 us", "backend cpu"])
    shoal.fails(*arguments, "--backend", "gpu", status=64, mentions=["--backend", "cpu", "sim", "gpu"])
