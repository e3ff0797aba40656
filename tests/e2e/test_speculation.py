"""Guessing ahead changes no token: without, by look-up, with a draft model, alone and on rings."""
import json
import re
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from conftest import model_path

PROMPTS = ["Once upon a time there was a", "one two three four one two three four one"]
SETTINGS = {"greedy": (), "sampled": ("--temp", "0.8", "--seed", "5"),
            "memory": ("--temp", "1", "--seed", "6", "--mirostat", "2")}


@pytest.fixture(scope="module")
def demo():
    return model_path("demo")


@pytest.fixture(scope="module")
def workers(shared_processes):
    return shared_processes.workers(2)


def generate(shoal, model, prompt, *flags):
    return shoal.json("run", model, "-p", prompt, "-n", 60, "--ignore-eos", *flags)


@pytest.fixture(scope="module")
def plain(shoal, demo):
    """What comes out without any guess."""
    answers = {(p, s): generate(shoal, demo, p, "--draft", 0, *flags)
               for p in PROMPTS for s, flags in SETTINGS.items()}
    assert all(a["timings"]["draft_tokens"] == 0 for a in answers.values())
    return {key: answer["ids"] for key, answer in answers.items()}


@pytest.fixture(scope="module")
def tally():
    """Guesses of all generations here: where one pays is decided by measured times, so on a busy
    machine a single generation may do without."""
    return {"guessed": 0, "right": 0, "by_model": 0}


@pytest.mark.parametrize("n_workers", [0, 1, 2])
@pytest.mark.parametrize("settings", SETTINGS)
def test_the_same_ids(shoal, demo, workers, plain, tally, settings, n_workers):
    nodes = ["--nodes", ",".join(workers[:n_workers])] if n_workers else []
    for prompt in PROMPTS:
        for draft in [(), ("--draft-model", demo), ("--draft-model", demo, "--draft", 1)]:
            answer = generate(shoal, demo, prompt, *nodes, *SETTINGS[settings], *draft)
            assert answer["ids"] == plain[prompt, settings]
            timings = answer["timings"]
            assert timings["draft_tokens"] >= timings["draft_accepted_tokens"]
            assert timings["draft_tokens"] >= timings["draft_model_tokens"]
            tally["guessed"] += timings["draft_tokens"]
            tally["right"] += timings["draft_accepted_tokens"]
            tally["by_model"] += timings["draft_model_tokens"]


def test_both_sources_guessed(tally):
    """After the generations above."""
    assert tally["guessed"] > tally["by_model"] > 0 and tally["right"] > 0


def test_it_says_what_it_guessed(shoal, demo):
    result = shoal.ok("run", demo, "-p", PROMPTS[0], "-n", 60, "--draft-model", demo)
    line = re.search(r"^guessed ahead (\d+) tokens, (\d+) of them right; by the draft model (\d+), "
                     r"(\d+)$", result.stderr, re.M)
    assert line, result.stderr
    guessed, right, by_model, right_by_model = map(int, line.groups())
    assert guessed >= by_model == right_by_model > 0 and guessed >= right


def ask(base_url, prompt):
    body = {"prompt": prompt, "max_tokens": 40, "temperature": 0.7, "seed": 3, "n": 2,
            "ignore_eos": True}
    request = urllib.request.Request(f"{base_url}/v1/completions", json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)


def test_a_server_counts_by_source(demo, processes, workers):
    """Many at once, on a ring, with so little memory that they take it from each other."""
    plain = processes.server(demo, "--draft", "0").base_url()
    url = processes.server(demo, "--draft-model", demo, "--slots", "4", "--kv-mb", "1", "--nodes",
                           ",".join(workers)).base_url()
    prompts = [f"{prompt} {i}" for prompt in PROMPTS for i in range(4)]
    expected = [ask(plain, p)["choices"] for p in prompts]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda p: ask(url, p), prompts))
    assert [a["choices"] for a in answers] == expected
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    for what, field in (("draft", "draft_tokens"), ("accepted", "draft_accepted_tokens")):
        counted = {source: int(n) for source, n in re.findall(
            rf'^shoal_spec_decode_num_{what}_tokens_total{{source="(\w+)"}} (\d+)$', text, re.M)}
        assert set(counted) == {"lookup", "model"}
        assert sum(counted.values()) == sum(a["timings"][field] for a in answers)
        by_model = field.replace("draft", "draft_model", 1)
        assert counted["model"] == sum(a["timings"][by_model] for a in answers) > 0


def test_another_vocabulary_is_refused(shoal, demo):
    other = model_path("stories260K")
    line = shoal.fails("run", demo, "-p", "x", "--draft-model", other,
                       mentions=["the draft model", "another vocabulary", "token 0"])
    assert "expected" in line and "found" in line


def test_what_is_no_draft_model_is_refused(shoal, demo, tmp_path):
    shoal.fails("run", demo, "-p", "x", "--draft-model", tmp_path / "none.gguf",
                mentions=["--draft-model", "none.gguf"])
    shoal.fails("run", demo, "-p", "x", "--draft-model", demo, "--draft", 0, status=64,
                mentions=["--draft 0"])
