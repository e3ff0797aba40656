"""shoal bench latency: what it says it measured, never how fast that was."""
import pytest

from conftest import model_path

SPREADS = {"prefix": ["first_token_ms", "first_token_shared_ms", "sooner"],
           "load": ["itl_median_ms", "itl_p99_ms", "itl_max_ms", "during_median_ms",
                    "during_p99_ms", "during_max_ms", "raised", "join_first_token_ms"]}


def check_spread(found, name, repetitions):
    spread = found[name]
    assert 0 < spread["min"] <= spread["median"] <= spread["max"], name
    assert spread["repetitions"] == repetitions, name


@pytest.mark.parametrize("n_workers", [0, 1])
def test_both_parts(shoal, processes, n_workers):
    nodes = ["--nodes", ",".join(processes.workers(n_workers))] if n_workers else []
    found = shoal.json("bench", "latency", model_path("demo"), "--prefix", 96, "-p", 150, "-s", 3,
                       "-r", 2, "-t", 1, *nodes)
    for name in SPREADS["prefix"] + SPREADS["load"]:
        check_spread(found, name, 2)
    assert found["cached_tokens"] == 96, "the shared part was in the cache, and nothing else"
    assert (found["prefix"], found["streams"], found["prompt"]) == (96, 3, 150)
    assert found["profile"] == "interactive"
    assert found["itl_median_ms"]["min"] <= found["itl_p99_ms"]["max"] <= found["itl_max_ms"]["max"]


def test_one_part_alone(shoal):
    model = model_path("demo")
    found = shoal.json("bench", "latency", model, "--prefix", 64, "-s", 0, "-r", 1,
                       "--no-prefix-cache")
    assert found["cached_tokens"] == 0
    assert "sooner" in found and "raised" not in found
    found = shoal.json("bench", "latency", model, "--prefix", 0, "-s", 2, "-p", 40, "-r", 1,
                       "--profile", "throughput")
    assert "sooner" not in found and "raised" in found
    assert found["profile"] == "throughput"


def test_what_cannot_be_measured(shoal):
    model = model_path("demo")
    shoal.fails("bench", "latency", model, "--prefix", 0, "-s", 0, status=64,
                mentions=["nothing to measure"])
    shoal.fails("bench", "latency", model, "--ctx", 190, "-p", 200, "-r", 1, "--prefix", 0,
                mentions=["200 tokens", "190 tokens"])
    shoal.fails("bench", "latency", model, "--ctx", 64, "-p", 30, "-s", 1, "-r", 1, "--prefix", 0,
                mentions=["the context has 64"])
    shoal.fails("bench", "latency", model, "--no-overlap", "--flights", 2, status=64,
                mentions=["--no-overlap", "2"])
