"""Many requests at once: choices, the prefix cache, profiles, a full queue, deadlines, /metrics. The
model is the demo's; what is compared is text, which nothing of this may change."""

import json
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from conftest import model_path

PROMPT = "Once upon a time there was a little"
TEXT = " ".join(["The king said to the queen that the king had said so to the queen."] * 12)


def ask(base_url, **fields):
    """(status, headers, body) of a completion."""
    fields = {"prompt": PROMPT, "max_tokens": 12, "temperature": 0, **fields}
    request = urllib.request.Request(f"{base_url}/v1/completions", json.dumps(fields).encode(),
                                     {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=300) as answer:
            return answer.status, answer.headers, json.load(answer)
    except urllib.error.HTTPError as refusal:
        return refusal.code, refusal.headers, json.load(refusal)


def texts(base_url, **fields):
    status, _, body = ask(base_url, **fields)
    assert status == 200, body
    return [choice["text"] for choice in body["choices"]]


def metrics(base_url):
    with urllib.request.urlopen(f"{base_url}/metrics", timeout=60) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        text = answer.read().decode()
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return text, {name: float(value) for name, value in values.items()}


def test_choices_are_those_of_smaller_n(server):
    """Choice i does not depend on how many there are, nor on what runs beside it."""
    settings = dict(temperature=0.9, seed=5, max_tokens=20)
    four = texts(server.base_url, n=4, **settings)
    assert len(four) == 4 and len(set(four)) > 1
    assert texts(server.base_url, n=2, **settings) == four[:2]
    assert texts(server.base_url, **settings) == four[:1]
    both = texts(server.base_url, n=2, prompt=[PROMPT, "The sea"], **settings)
    assert both[:2] == four[:2] and len(both) == 4


def test_a_known_prompt_is_not_computed_again(server):
    prompt = f"{time.time()} {TEXT}"
    _, _, first = ask(server.base_url, prompt=prompt)
    _, _, second = ask(server.base_url, prompt=prompt)
    assert first["choices"] == second["choices"]
    details = second["usage"]["prompt_tokens_details"]
    assert details["cached_tokens"] >= second["usage"]["prompt_tokens"] - 16  # whole blocks
    assert second["timings"]["prefill_ms"] < first["timings"]["prefill_ms"]


def test_metrics_count(server):
    _, before = metrics(server.base_url)
    ask(server.base_url, n=3, max_tokens=5, ignore_eos=True)
    text, after = metrics(server.base_url)
    assert after["shoal_requests_total"] - before["shoal_requests_total"] == 3
    assert after["shoal_generation_tokens_total"] - before["shoal_generation_tokens_total"] == 15
    assert after["shoal_num_requests_running"] == 0
    assert after['shoal_kv_blocks{state="held"}'] == 0
    assert after['shoal_stage_up{stage="0",node="lead",layers="0-7"}'] == 1
    assert re.search(r"^# TYPE shoal_time_to_first_token_seconds histogram$", text, re.M)
    if shutil.which("promtool"):
        check = subprocess.run(["promtool", "check", "metrics"], input=text, text=True,
                               capture_output=True, check=False)
        assert check.returncode == 0 and not check.stderr, check.stderr


def test_a_deadline_ends_a_request(server):
    status, _, body = ask(server.base_url, max_tokens=-1, deadline_ms=1, ignore_eos=True)
    assert status == 504 and body["error"]["code"] == "deadline_exceeded"


@pytest.mark.parametrize("flags", [
    ("--profile", "throughput"),
    ("--profile", "low-memory", "--slots", "2", "--no-overlap"),
    ("--profile", "interactive", "--max-itl-ms", "1", "--flights", "3", "--draft", "0"),
    ("--no-prefix-cache", "--batch", "7", "--draft", "16"),
    ("--slots", "6", "--kv-mb", "3"),
])
def test_no_profile_changes_a_token(server, processes, flags):
    other = processes.server(model_path("demo"), *flags).base_url()
    prompts = [TEXT, PROMPT, f"{TEXT} And then", "He"]
    settings = dict(temperature=0.8, seed=11, max_tokens=40, n=2)
    expected = [texts(server.base_url, prompt=p, **settings) for p in prompts]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda p: texts(other, prompt=p, **settings), prompts)) == expected


def test_a_crowd_is_answered_or_refused(processes):
    """Each request is answered with its own text, or refused with 429 and Retry-After."""
    url = processes.server(model_path("demo"), "--slots", "4", "--queue", "20").base_url()
    expected = texts(url, max_tokens=30)
    with ThreadPoolExecutor(80) as pool:
        answers = list(pool.map(lambda _: ask(url, max_tokens=30), range(80)))
    answered = [body for status, _, body in answers if status == 200]
    refused = [headers for status, headers, _ in answers if status == 429]
    assert len(answered) + len(refused) == 80 and len(answered) >= 24
    assert all(body["choices"][0]["text"] == expected[0] for body in answered)
    assert all(int(headers["Retry-After"]) >= 1 for headers in refused)
    _, counted = metrics(url)
    assert counted["shoal_requests_refused_total"] == len(refused)
