"""bench/ring: its arithmetic, what it reads of the programs, and that each runs to the end.

Speeds are never asserted: the machine that tests run on has other work.
"""
import json
import os
import subprocess
import sys

import pytest

import gguf_file
from conftest import ROOT

RING = ROOT / "bench" / "ring"
sys.path[:0] = [str(RING), str(ROOT / "bench" / "compare")]
import hop
import pipeline
import programs
import rings
import two_stages

METRICS = """# HELP shoal_generation_tokens_total Tokens generated.
# TYPE shoal_generation_tokens_total counter
shoal_generation_tokens_total {tokens}
shoal_steps_total {steps}
shoal_step_rows_total {rows}
shoal_stage_busy_seconds_total{{stage="1",node="lead"}} {busy1}
shoal_stage_busy_seconds_total{{stage="0",node="127.0.0.1:50100"}} {busy0}
"""


def counters(at, **values):
    return rings.Counters(METRICS.format(**values), at)


# --- arithmetic ---

def test_rates():
    before = counters(10.0, tokens=100, steps=20, rows=200, busy0=1.0, busy1=0.5)
    after = counters(12.0, tokens=300, steps=60, rows=360, busy0=2.9, busy1=1.5)
    found = rings.rates(before, after)
    assert found["tok_s"] == pytest.approx(100)
    assert found["steps_s"] == pytest.approx(20)
    assert found["rows"] == pytest.approx(4)
    assert found["busy"] == [pytest.approx(0.95), pytest.approx(0.5)] # in the order of the stages


def test_rates_of_nothing():
    before = counters(10.0, tokens=1, steps=2, rows=2, busy0=0, busy1=0)
    with pytest.raises(programs.MeasureError, match="no steps within 1.00 s"):
        rings.rates(before, counters(11.0, tokens=1, steps=2, rows=2, busy0=0, busy1=0))


def test_missing_counters():
    found = rings.Counters('shoal_stage_up{stage="1",node="x"} 1\n', 0)
    with pytest.raises(programs.MeasureError, match="expected shoal_steps_total"):
        found["shoal_steps_total"] # pylint: disable=pointless-statement
    with pytest.raises(programs.MeasureError, match=r"every stage, found those of \[1\]"):
        found.of_stages("shoal_stage_up")


def test_placement():
    assert rings.placement(["a:1", "b:2"], [3, 1]) == "a:1=0-2,b:2=3-3"
    with pytest.raises(ValueError):
        rings.placement(["a:1"], [3, 1])


def test_share_of_stages():
    """Four stages whose steps come as often as one alone makes them: all of 4 x one stage."""
    assert pipeline.share({"tok_s": 190.0}, {"tok_s": 200.0}) == pytest.approx(0.95)
    runs = [({"tok_s": 190.0, "rows": 4.0, "busy": [0.9, 0.8]}, {"tok_s": 200.0}),
            ({"tok_s": 180.0, "rows": 4.0, "busy": [0.7, 0.6]}, {"tok_s": 200.0}),
            ({"tok_s": 99.0, "rows": 3.0, "busy": [0.8, 0.9]}, {"tok_s": 100.0})]
    found = pipeline.summarise(runs)
    assert (found["share"], found["least"], found["most"]) == (
        pytest.approx(0.95), pytest.approx(0.9), pytest.approx(0.99))
    assert found["busy"] == [pytest.approx(0.8), pytest.approx(0.8)]


def test_cost_of_a_hop():
    assert hop.cost_of(3180.0, 2, 1500) == pytest.approx(90)
    assert hop.cost_of(1504.0, 1, 1500) == pytest.approx(4)


def test_two_stages_against_one():
    a = two_stages.options(["--model", "m", "--cpus", cpus()])
    a.work = {"long prompt": (1, 2000)}
    one = {"tok_s": 20.0, "busy": [0.99]}
    two = {"tok_s": 24.0, "busy": [0.6, 0.96]}
    slow = {"seconds": 10.0, "busy": [1.0], "rows": 1000}
    fast = {"seconds": 5.0, "busy": [0.7, 0.9], "rows": 100}
    found = two_stages.summarise(a, [{1: ({"long prompt": slow}, one), 2: ({"long prompt": fast}, two)}])
    entry = found["prefill"][0]
    assert entry["busiest"]["median"] == pytest.approx(0.9)
    assert entry["gain"]["median"] == pytest.approx(2) # sooner, not later
    assert (entry["tok_s"][1]["median"], entry["tok_s"][2]["median"]) == (200, 400)
    assert found["decode"]["gain"]["median"] == pytest.approx(1.2)
    assert found["decode"]["of_slowest_stage"]["median"] == pytest.approx(0.96)
    peer = two_stages.summarise_peer([{0: {"prefill": 100, "decode": 20},
                                       1: {"prefill": 50, "decode": 10},
                                       2: {"prefill": 55, "decode": 8}}])
    assert peer["prefill"]["over_local"]["median"] == pytest.approx(0.55)
    assert peer["decode"]["over_one"]["median"] == pytest.approx(0.8)


def test_prompts_share_no_beginning():
    found = two_stages.prompts(8, 40, 1000, 5)
    assert [len(p) for p in found] == [40] * 8 and len({tuple(p[:4]) for p in found}) == 8
    assert all(500 <= i < 1000 for p in found for i in p)
    assert two_stages.prompts(8, 40, 1000, 6) != found


# --- the programs ---

def cpus():
    usable = sorted(os.sched_getaffinity(0))
    return f"{usable[0]},{usable[-1]}"


def run(name, *arguments):
    return subprocess.run([sys.executable, str(RING / name), *map(str, arguments)],
                          capture_output=True, text=True, timeout=200, check=False)


@pytest.mark.slow
def test_pipeline_runs(shoal, tmp_path):
    report = tmp_path / "report.json"
    done = run("pipeline.py", "--shoal", shoal.binary, "--quick", "--seconds", 0.5, "--stages", "2,3",
               "--step-us", 4000, "--json", report)
    assert done.returncode == 0, done.stderr
    entry = json.loads(report.read_text("utf-8"))["results"][0]
    assert [r["stages"] for r in entry["rings"]] == [2, 3]
    for r in entry["rings"]:
        assert len(r["overlap"]["busy"]) == r["stages"]
        assert r["no_overlap"]["share"] > 0 and r["overlap"]["share"] > 0
        assert r["overlap"]["rows"] == pytest.approx(4, rel=0.3) # spread evenly over the flights
    assert "| 4 ms | 2 |" in done.stdout and "| 4 ms | 3 |" in done.stdout


@pytest.mark.slow
def test_hop_runs(shoal, tmp_path):
    report = tmp_path / "report.json"
    done = run("hop.py", "--shoal", shoal.binary, "--quick", "--stages", "1,2", "--positions", "10,600",
               "--hidden", 512, "--json", report)
    assert done.returncode == 0, done.stderr
    found = json.loads(report.read_text("utf-8"))["results"]
    assert [(r["stages"], r["position"]) for r in found] == [(1, 10), (1, 600), (2, 10), (2, 600)]
    assert all(r["step_us"][0] >= r["stages"] * 1500 for r in found)


@pytest.mark.slow
def test_two_stages_run(shoal, tmp_path):
    shape = gguf_file.Shape(layers=4, hidden=512, ffn=1536, heads=8, kv_heads=4, context=8192)
    model = gguf_file.write_model(tmp_path / "m.gguf", shape, "f32")
    report = tmp_path / "report.json"
    done = run("two_stages.py", "--shoal", shoal.binary, "--model", model, "--cpus", cpus(), "--quick",
               "--seconds", 0.5, "--decode-layers", 3, "--json", report)
    assert done.returncode == 0, done.stderr
    found = json.loads(report.read_text("utf-8"))
    assert [e["work"] for e in found["prefill"]] == list(two_stages.WORK)
    assert len(found["decode"]["busy"][0]) == 2
    assert "| long prompt: 1 x 64 tokens |" in done.stdout


@pytest.mark.parametrize("name, arguments, complaint", [
    ("pipeline.py", ["--stages", "9"], "at most 8 stages"),
    ("pipeline.py", ["--step-us", "0"], "numbers from 1 up"),
    ("hop.py", ["--hidden", "65"], "multiple of 32"),
    ("two_stages.py", ["--model", "m", "--cpus", "0"], "expected two of")])
def test_usage(name, arguments, complaint):
    done = run(name, *arguments)
    assert done.returncode == 2 and complaint in done.stderr


def test_a_program_that_fails(tmp_path):
    fake = tmp_path / "shoal"
    fake.write_text("#!/bin/sh\necho no such flag >&2\nexit 64\n", "utf-8")
    fake.chmod(0o755)
    done = run("pipeline.py", "--shoal", fake, "--quick", "--stages", "2")
    assert done.returncode == 1
    assert "lead: ended with status 64: no such flag" in done.stderr


def test_a_peer_without_its_programs(tmp_path):
    a = two_stages.options(["--model", "m", "--cpus", cpus(), "--peer", str(tmp_path)])
    with pytest.raises(programs.MeasureError, match="expected llama-bench and one of"):
        two_stages.Peer(a)
