"""Rings of real processes on loopback: workers, a lead that serves, requests to it, its counters.

Everything binds a free port of 127.0.0.1 and is stopped by its process id. What does not go as it should
is a MeasureError that names the process and what it said last.
"""
import http.client
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench" / "compare"))
from programs import MeasureError

START_SECONDS = 60 # for a process to listen, and a lead to have loaded
STOP_SECONDS = 10


class Process:
    """A program in the background. `cpu`: the processor that it is kept to, or None."""

    def __init__(self, name, command, folder, cpu=None):
        self.name = name
        self.out, self.err = (pathlib.Path(folder) / f"{name}.{kind}" for kind in ("out", "err"))
        pinned = [] if cpu is None else ["taskset", "-c", str(cpu)]
        with open(self.out, "wb") as out, open(self.err, "wb") as err:
            try:
                self.process = subprocess.Popen([*pinned, *map(str, command)], stdout=out, stderr=err,
                                                stdin=subprocess.DEVNULL)
            except OSError as error:
                raise MeasureError(f"{command[0]}: {error.strerror}") from error

    def said(self):
        lines = self.err.read_text("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else "nothing on stderr"

    def check(self):
        status = self.process.poll()
        if status is not None:
            raise MeasureError(f"{self.name}: ended with status {status}: {self.said()}")

    def address(self, pattern=r"^listening on (\S+)\n", seconds=START_SECONDS):
        """H:P of what it prints when it listens."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            found = re.search(pattern, self.out.read_text("utf-8", "replace"), re.M)
            if found:
                return found.group(1)
            self.check()
            time.sleep(0.01)
        raise MeasureError(f"{self.name}: does not listen after {seconds} s: {self.said()}")

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Counters:
    """The values of /metrics, and when they were asked for."""

    def __init__(self, text, at):
        self.at, self.values = at, {}
        for line in text.splitlines():
            name, _, value = line.rpartition(" ")
            if name and not line.startswith("#"):
                self.values[name] = float(value)

    def __getitem__(self, name):
        if name not in self.values:
            raise MeasureError(f"/metrics: expected {name}, not found")
        return self.values[name]

    def of_stages(self, name):
        """[value of stage 0, 1, …]."""
        found = {}
        for key, value in self.values.items():
            match = re.match(re.escape(name) + r'\{stage="(\d+)",', key)
            if match:
                found[int(match.group(1))] = value
        if sorted(found) != list(range(len(found))) or not found:
            raise MeasureError(f"/metrics: expected {name} of every stage, found those of "
                               f"{sorted(found)}")
        return [found[i] for i in range(len(found))]


class Ring:
    """`n_stages` - 1 workers and a lead that serves. Use it with `with`: then everything is stopped.

    `flags` go to every process, `lead_flags` to the lead; `cpus[i]` is what stage i is kept to. With
    `split`, the first split[i] layers go to stage i, and what is left to the lead.
    """

    def __init__(self, binary, model, n_stages, flags=(), lead_flags=(), cpus=None, split=None):
        self.binary, self.model, self.n_stages = binary, model, n_stages
        self.flags, self.lead_flags = list(flags), list(lead_flags)
        self.cpus, self.split = cpus, split
        self.workers, self.lead = [], None

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory()
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process in [self.lead, *self.workers]:
            if process is not None:
                process.stop()
        self.folder.cleanup()

    def cpu(self, stage):
        return None if self.cpus is None else self.cpus[stage % len(self.cpus)]

    def start(self):
        for i in range(self.n_stages - 1):
            command = [self.binary, "worker", "--listen", "127.0.0.1:0", *self.flags]
            self.workers.append(Process(f"worker{i}", command, self.folder.name, self.cpu(i)))
        nodes = [worker.address() for worker in self.workers]
        command = [self.binary, "serve", self.model, "--listen", "127.0.0.1:0", *self.flags,
                   *self.lead_flags]
        if nodes:
            command += ["--nodes", ",".join(nodes)]
        if nodes and self.split is not None:
            command += ["--layers", placement(nodes, self.split)]
        self.lead = Process("lead", command, self.folder.name, self.cpu(self.n_stages - 1))
        host, _, port = self.lead.address().rpartition(":")
        self.host, self.port = host, int(port)
        self.wait_until_ready()

    def connect(self, timeout=600):
        return http.client.HTTPConnection(self.host, self.port, timeout=timeout)

    def ask(self, method, path, body=None):
        """(status, text)."""
        connection = self.connect()
        try:
            connection.request(method, path, None if body is None else json.dumps(body),
                               {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read().decode("utf-8")
        except (OSError, http.client.HTTPException) as error:
            self.lead.check()
            raise MeasureError(f"lead: {path}: {error}") from error
        finally:
            connection.close()

    def wait_until_ready(self):
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            self.lead.check()
            if self.ask("GET", "/health")[0] == 200:
                return
            time.sleep(0.02)
        raise MeasureError(f"lead: not ready after {START_SECONDS} s: {self.lead.said()}")

    def counters(self):
        """Between the asking and the answer lies little; the middle counts."""
        before = time.monotonic()
        status, text = self.ask("GET", "/metrics")
        if status != 200:
            raise MeasureError(f"/metrics: expected status 200, found {status}: {text[:200]}")
        return Counters(text, (before + time.monotonic()) / 2)


def placement(addresses, split):
    """--layers for workers with so many layers each, from the first on."""
    parts, first = [], 0
    for address, n in zip(addresses, split, strict=True):
        parts.append(f"{address}={first}-{first + n - 1}")
        first += n
    return ",".join(parts)


class Requests:
    """Completions under way, each on a thread of its own. `with` ends what is left by hanging up."""

    def __init__(self, ring, bodies):
        self.ring, self.bodies = ring, bodies
        self.answers, self.errors, self.connections = [], [], []
        self.threads = [threading.Thread(target=self.run, args=(body,), daemon=True)
                        for body in bodies]

    def run(self, body):
        connection = self.ring.connect()
        self.connections.append(connection)
        try:
            connection.request("POST", "/v1/completions", json.dumps(body),
                               {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read().decode("utf-8")
            if answer.status != 200:
                raise MeasureError(f"a completion: status {answer.status}: {text[:200]}")
            self.answers.append(json.loads(text))
        except (MeasureError, OSError, ValueError, AttributeError, http.client.HTTPException) as error:
            self.errors.append(str(error))

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def wait(self):
        """All answers."""
        for thread in self.threads:
            thread.join()
        if self.errors:
            raise MeasureError(self.errors[0])
        return self.answers

    def check(self):
        self.ring.lead.check()
        if self.errors:
            raise MeasureError(self.errors[0])

    def __exit__(self, *_):
        for connection in list(self.connections):
            if connection.sock is not None:
                try:
                    connection.sock.shutdown(2)
                except OSError:
                    pass # it is closed already
        for thread in self.threads:
            thread.join(STOP_SECONDS)


def completion(prompt, n_tokens):
    """A request whose length is known: greedy, on past the end of the text."""
    return {"prompt": prompt, "max_tokens": n_tokens, "temperature": 0, "ignore_eos": True}


def steady(ring, requests, settle_tokens, seconds):
    """Counters at the beginning and the end of a stretch in which all requests decode and nothing
    begins or ends: from `settle_tokens` of each on, `seconds` long."""
    n = len(requests.bodies)
    until = time.monotonic() + 600
    while True:
        requests.check()
        before = ring.counters()
        if before["shoal_time_to_first_token_seconds_count"] >= n and \
                before["shoal_generation_tokens_total"] >= n * settle_tokens:
            break
        if time.monotonic() > until:
            raise MeasureError("not all requests began to decode within 600 s")
        time.sleep(0.05)
    before = ring.counters()
    time.sleep(seconds)
    after = ring.counters()
    requests.check()
    running = after["shoal_num_requests_running"]
    if running != n:
        raise MeasureError(f"expected {n} requests to run to the end, found {running:.0f}: their "
                           "tokens did not last")
    return before, after


def rates(before, after):
    """What a stretch between two counters says: tokens and steps a second, rows of a step, and the share
    of the time that each stage computed."""
    seconds = after.at - before.at

    def gained(name):
        return after[name] - before[name]
    steps = gained("shoal_steps_total")
    if seconds <= 0 or steps <= 0:
        raise MeasureError(f"no steps within {seconds:.2f} s")
    return {"tok_s": gained("shoal_generation_tokens_total") / seconds, "steps_s": steps / seconds,
            "rows": gained("shoal_step_rows_total") / steps, "seconds": seconds,
            "busy": [b / seconds for b in busy_seconds(before, after)]}


def busy_seconds(before, after):
    """How long each stage computed between two counters."""
    name = "shoal_stage_busy_seconds_total"
    return [b - a for a, b in zip(before.of_stages(name), after.of_stages(name), strict=True)]
