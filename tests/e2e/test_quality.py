"""What rounding activations to int8 costs: the demo model in each quantised type against the same
weights as F32, with which Shoal computes in float. Perplexity may differ by half a percent for Q8_0 and
by one percent for the smaller types; the text is held out.
"""
import sys

import pytest

from conftest import ROOT, model_path

sys.path.insert(0, str(ROOT / "bench"))
pytest.importorskip("numpy", reason="no numpy")
import requantise

TEXT = ROOT / "tests/golden/demo/heldout.txt"
PERCENT = {"Q8_0": 0.5, "Q4_0": 1.0, "Q4_K": 1.0, "Q6_K": 1.0}


@pytest.mark.slow
@pytest.mark.parametrize("kind", PERCENT)
def test_perplexity_with_int8_activations(shoal, tmp_path, kind):
    coded, floats = tmp_path / "coded.gguf", tmp_path / "floats.gguf"
    requantise.requantise(model_path("demo"), coded, kind, floats)
    found = shoal.json("eval", coded, "--ppl", TEXT, "--kv", "f32")["ppl"]
    expected = shoal.json("eval", floats, "--ppl", TEXT, "--kv", "f32")["ppl"]
    assert abs(found / expected - 1) * 100 < PERCENT[kind], (found, expected)
