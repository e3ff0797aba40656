"""`shoal top` on a real ring: a server and a worker under load, a server that is not there."""
import json
import os
import pty
import signal
import subprocess
import threading
import time
import urllib.request

import pytest

from conftest import model_path
from shoal_process import SLOWNESS


@pytest.fixture(scope="module")
def ring(shared_processes):
    worker = shared_processes.worker("--threads", "1").address()
    server = shared_processes.server(model_path("demo"), "--nodes", worker, "--threads", "1")
    return server.base_url(), worker


def complete(url, **fields):
    body = json.dumps({"prompt": "Once upon a time", "ignore_eos": True, **fields}).encode()
    request = urllib.request.Request(f"{url}/v1/completions", body,
                                     {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60 * SLOWNESS) as answer:
        return json.load(answer)


@pytest.fixture
def load(ring):
    """Requests one after the other while a test looks."""
    ending = threading.Event()

    def ask():
        while not ending.is_set():
            complete(ring[0], max_tokens=60, n=3)

    thread = threading.Thread(target=ask)
    thread.start()
    yield
    ending.set()
    thread.join()


def stage_series(url):
    """stage -> name -> value of the seconds that each stage accounts for."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    series = {}
    for line in lines:
        if line.startswith("shoal_stage_") and "_seconds_total" in line:
            name, rest = line.split("{", 1)
            labels, value = rest.rsplit("} ", 1)
            stage = labels.split('"')[1]
            series.setdefault(stage, {})[name[len("shoal_stage_"):-len("_seconds_total")]] = float(
                value)
    return series


def test_a_stage_accounts_for_all_its_time(ring):
    url, _ = ring
    complete(url, max_tokens=5)
    before, at = stage_series(url), time.monotonic()
    complete(url, max_tokens=40)
    time.sleep(2)
    after, seconds = stage_series(url), time.monotonic() - at
    assert sorted(after) == ["0", "1"]
    for stage in after:
        assert set(after[stage]) == {"busy", "input_wait", "send_wait", "other"}
        grown = {name: after[stage][name] - before[stage][name] for name in after[stage]}
        assert all(value >= 0 for value in grown.values()), grown
        assert grown["busy"] > 0 and grown["input_wait"] > 1  # the two seconds of nothing
        # The lead tells its account anew twice a second while it has nothing to do.
        assert sum(grown.values()) == pytest.approx(seconds, abs=0.8 * SLOWNESS)


def test_json_of_a_ring_under_load(shoal, ring, load):
    url, worker = ring
    for _ in range(10):  # an interval may fall between two requests
        view = shoal.json("top", "--url", url + "/", "--interval", "2")
        if view["decode_tok_s"] > 0 and view["bottleneck"] is not None:
            break
    assert view["decode_tok_s"] > 0 and view["slots"] == 16
    assert view["interval_s"] == pytest.approx(2, abs=1.5 * SLOWNESS)
    assert 0 < view["inter_token_s"]["p50"] <= view["inter_token_s"]["p95"]
    assert view["kv_blocks"]["held"] + view["kv_blocks"]["idle"] > 0
    assert [s["stage"] for s in view["stages"]] == [0, 1]
    assert [s["node"] for s in view["stages"]] == [worker, "lead"]
    assert [s["layers"] for s in view["stages"]] == ["0-3", "4-7"]
    for stage in view["stages"]:
        shares = [stage[name] for name in ("busy", "input_wait", "send_wait", "other")]
        assert all(0 <= share <= 1 for share in shares)
        assert sum(shares) == pytest.approx(1)
        assert stage["busy"] > 0 and stage["rows_per_s"] > 0 and stage["up"]
    assert sum(s["bottleneck"] for s in view["stages"]) == 1
    assert view["prefix_found"] is None or 0 <= view["prefix_found"] <= 1


def test_text_without_a_terminal_is_one_view(shoal, ring):
    url, worker = ring
    result = shoal.ok("top", "--url", url, "--interval", "0.2")
    assert "\x1b" not in result.stdout
    for part in ("requests ", "tokens ", "latency ", "kv blocks ", "stage ", worker, "lead"):
        assert part in result.stdout
    assert result.stdout.count("requests ") == 1


def test_a_terminal_is_painted_again_until_told_to_end(shoal, ring):
    ours, theirs = pty.openpty()
    process = subprocess.Popen([shoal.binary, "top", "--url", ring[0], "--interval", "0.1"],
                               stdin=subprocess.DEVNULL, stdout=theirs, stderr=subprocess.PIPE)
    os.close(theirs)
    seen = b""
    deadline = time.monotonic() + 30 * SLOWNESS
    while seen.count(b"\x1b[H\x1b[J") < 3 and time.monotonic() < deadline:
        seen += os.read(ours, 65536)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30 * SLOWNESS)
    os.close(ours)
    assert process.returncode == 0, stderr
    assert seen.count(b"\x1b[H\x1b[J") >= 3
    assert seen.count(b"requests ") >= 2


def test_what_cannot_be_watched(shoal, ring):
    shoal.fails("top", "--url", "http://127.0.0.1:9", "--once",
                mentions=["http://127.0.0.1:9/metrics"])
    shoal.fails("top", "--url", f"{ring[0]}/v1", "--once", mentions=["status 200, found 404"])
    shoal.fails("top", "--url", "127.0.0.1:8100", status=64, mentions=["--url", "http://HOST:PORT"])
    shoal.fails("top", "--interval", "0", status=64, mentions=["--interval"])
    shoal.fails("top", "now", status=64, mentions=["now"])


def test_a_server_without_a_model_yet(shoal, tmp_path):
    """Something else that answers /metrics, and a server that is still loading."""
    import http.server

    class Handler(http.server.BaseHTTPRequestHandler):
        text = b"shoal_ready 0\n"

        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(self.text)))
            self.end_headers()
            self.wfile.write(self.text)

        def log_message(self, *arguments):
            pass

    fake = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=fake.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{fake.server_address[1]}"
        shoal.fails("top", "--url", url, "--once", mentions=["serves no model yet"])
        Handler.text = b"process_cpu_seconds_total 3\n"
        shoal.fails("top", "--url", url, "--once", mentions=["shoal_ready"])
        Handler.text = b"<html>\n"
        shoal.fails("top", "--url", url, "--once", mentions=["line 1 is no sample"])
    finally:
        fake.shutdown()
        fake.server_close()
