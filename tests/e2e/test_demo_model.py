"""The demo model against transformers, whose outputs stand in tests/golden/demo (with versions).

transformers computes in float32 on the dequantised weights; Shoal rounds the inputs of matrix products to
int8. So where the two best logits of a step are closer than that rounding can move them, either may win, and
the rest of that case is another text: ids are compared up to there.
"""
import hashlib
import json
import pathlib

import pytest

from conftest import ROOT, model_path

GOLDEN = ROOT / "tests" / "golden" / "demo"
CLOSE = 0.05        # a gap between the best two logits that int8 rounding may close
LOGIT_ERROR = 0.05  # measured: at most 0.031 over the nine prompts


def load(name):
    return json.loads((GOLDEN / name).read_text("utf-8"))


@pytest.fixture(scope="module")
def demo():
    return model_path("demo")


def test_the_golden_files_are_of_this_model(demo):
    digest = hashlib.sha256(pathlib.Path(demo).read_bytes()).hexdigest()
    assert load("greedy.json")["model_sha256"] == digest
    assert load("perplexity.json")["model_sha256"] == digest


@pytest.mark.parametrize("case", load("greedy.json")["cases"], ids=lambda c: c["kind"])
def test_greedy(shoal, demo, case):
    expected = case["greedy_ids"]
    answer = shoal.json("run", demo, "-p", case["prompt"], "-n", len(expected), "--kv", "f32")
    assert answer["prompt_ids"] == case["prompt_ids"]
    sure = next((i for i, gap in enumerate(case["gaps"]) if gap < CLOSE), len(expected))
    assert answer["ids"][:sure] == expected[:sure]


def test_enough_ids_are_sure():
    cases = load("greedy.json")["cases"]
    sure = [next((i for i, gap in enumerate(c["gaps"]) if gap < CLOSE), len(c["gaps"]))
            for c in cases]
    assert sum(sure) >= 60, sure


@pytest.mark.parametrize("case", load("greedy.json")["cases"], ids=lambda c: c["kind"])
def test_logits_after_the_prompt(shoal, demo, case):
    found = shoal.json("eval", demo, "--next", case["prompt"], "--top", 20, "--kv", "f32")["next"]
    logits = {entry["id"]: entry["logit"] for entry in found}
    for token, expected in case["top5_next"]:
        assert abs(logits[token] - expected) < LOGIT_ERROR


@pytest.mark.parametrize("result", load("perplexity.json")["results"],
                         ids=lambda r: f"block {r['block']}")
def test_perplexity(shoal, demo, result):
    found = shoal.json("eval", demo, "--ppl", GOLDEN / result["text"], "--block", result["block"],
                       "--kv", "f32")
    assert found["scored_tokens"] == result["scored_tokens"]
    assert found["ppl"] == pytest.approx(result["ppl"], rel=1e-3)
