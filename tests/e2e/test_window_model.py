"""A model with a sliding window against transformers, whose outputs stand in tests/golden/window (made by
tools/window_model/make.py, with versions). Its weights are BF16, which Shoal computes with in float: ids
are equal, logits and perplexity to the rounding of float32.
"""
import hashlib
import json

import pytest

from conftest import ROOT

MODEL = ROOT / "tests" / "golden" / "window"
GOLDEN = json.loads((MODEL / "golden.json").read_text("utf-8"))
CASES = pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda c: c["prompt"][:12])


def test_the_golden_file_is_of_this_model():
    digest = hashlib.sha256((MODEL / "model.safetensors").read_bytes()).hexdigest()
    assert GOLDEN["model_sha256"] == digest


def test_inspect_tells_the_window(shoal):
    assert shoal.json("inspect", MODEL)["model"]["window"] == GOLDEN["window"]


@CASES
def test_greedy(shoal, case):
    """Over several windows; the pool that a lone sequence gets holds one window and a step."""
    answer = shoal.json("run", MODEL, "-p", case["prompt"], "-n", len(case["greedy_ids"]),
                        "--kv", "f32")
    assert answer["prompt_ids"] == case["prompt_ids"]
    assert answer["ids"] == case["greedy_ids"]


@CASES
def test_logits_after_the_prompt(shoal, case):
    found = shoal.json("eval", MODEL, "--next", case["prompt"], "--top", 5, "--kv", "f32")["next"]
    assert [entry["id"] for entry in found] == [token for token, _ in case["top5_next"]]
    for entry, (_, expected) in zip(found, case["top5_next"]):
        assert entry["logit"] == pytest.approx(expected, abs=1e-3)


def test_perplexity(shoal):
    expected = GOLDEN["perplexity"]
    found = shoal.json("eval", MODEL, "--ppl", MODEL / expected["text"], "--block",
                       expected["block"], "--kv", "f32")
    assert found["scored_tokens"] == expected["scored_tokens"]
    assert found["ppl"] == pytest.approx(expected["ppl"], rel=1e-5)
