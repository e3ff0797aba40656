"""Processes of the binary under test: one-shot verbs, and workers and servers in the background.

Everything binds loopback on port 0 and is stopped by its process id. A background process writes
to files, not pipes: nothing has to read them for it to go on.
"""
import json
import os
import pathlib
import re
import signal
import subprocess
import time
import urllib.error
import urllib.request

# Sanitized programs start and run many times slower; every deadline is stretched by this.
SLOWNESS = float(os.environ.get("SHOAL_TEST_SLOWNESS", "1"))


class Result:
    def __init__(self, completed):
        self.status = completed.returncode
        self.stdout = completed.stdout.decode("utf-8")
        self.stderr = completed.stderr.decode("utf-8", "replace")

    def error_line(self):
        """The one line of an error: nothing on stdout, nothing else on stderr."""
        lines = self.stderr.splitlines()
        assert self.stdout == "", f"output of a failed command: {self.stdout!r}"
        assert len(lines) == 1, f"expected one line on stderr, found {len(lines)}:\n{self.stderr}"
        return lines[0]


class Shoal:
    """The binary. `run` never raises on a failed command; `ok` and `json` do."""

    def __init__(self, binary):
        self.binary = str(binary)

    def run(self, *arguments, stdin=b"", timeout=60, **environment):
        completed = subprocess.run(
            [self.binary, *map(str, arguments)], input=stdin, capture_output=True,
            timeout=timeout * SLOWNESS, env={**os.environ, **environment}, check=False)
        return Result(completed)

    def ok(self, *arguments, **options):
        result = self.run(*arguments, **options)
        assert result.status == 0, f"{arguments}: exit status {result.status}\n{result.stderr}"
        return result

    def json(self, *arguments, **options):
        return json.loads(self.ok(*arguments, "--json", **options).stdout)

    def fails(self, *arguments, status=1, mentions=(), **options):
        """Runs a command that must fail with one line that says all of `mentions`."""
        result = self.run(*arguments, **options)
        assert result.status == status, (
            f"{arguments}: expected exit status {status}, found {result.status}\n"
            f"{result.stdout}{result.stderr}")
        line = result.error_line()
        for part in mentions:
            assert part in line, f"expected {part!r} in: {line}"
        return line


class Background:
    """A process that runs until stop(); `folder` gets what it prints."""

    def __init__(self, binary, arguments, folder, name, environment=None, user=None):
        self.name = name
        self.out = pathlib.Path(folder) / f"{name}.out"
        self.err = pathlib.Path(folder) / f"{name}.err"
        with open(self.out, "wb") as out, open(self.err, "wb") as err:
            self.process = subprocess.Popen(
                [str(binary), *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=out,
                stderr=err, env={**os.environ, **(environment or {})}, user=user)

    @property
    def pid(self):
        return self.process.pid

    def printed(self):
        """What it said so far, for messages of failed tests."""
        return (self.out.read_bytes() + self.err.read_bytes()).decode("utf-8", "replace")

    def address(self, seconds=20):
        """The H:P of its line "listening on H:P"."""
        deadline = time.monotonic() + seconds * SLOWNESS
        while time.monotonic() < deadline:
            match = re.search(r"^listening on (\S+)\n", self.out.read_text("utf-8"), re.M)
            if match:
                return match.group(1)
            assert self.process.poll() is None, (
                f"{self.name} ended with {self.process.returncode}\n{self.printed()}")
            time.sleep(0.01)
        raise AssertionError(f'{self.name} did not say "listening on"\n{self.printed()}')

    def kill(self):
        """As if its machine had lost power."""
        self.process.kill()
        self.process.wait(10)

    def stop(self, seconds=15):
        """Asks it to end and returns its exit status; one that does not end is killed and fails."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(seconds * SLOWNESS)
            except subprocess.TimeoutExpired:
                self.kill()
                raise AssertionError(f"{self.name} did not end on SIGTERM\n{self.printed()}") from None
        return self.process.returncode


class Server(Background):
    """`shoal serve`, with what a client needs to know."""

    def base_url(self):
        return f"http://{self.address()}"

    def wait_until_healthy(self, seconds=60):
        deadline = time.monotonic() + seconds * SLOWNESS
        url = f"{self.base_url()}/health"
        while time.monotonic() < deadline:
            assert self.process.poll() is None, (
                f"{self.name} ended with {self.process.returncode}\n{self.printed()}")
            try:
                with urllib.request.urlopen(url, timeout=5) as answer:
                    if answer.status == 200:
                        return
            except (urllib.error.URLError, ConnectionError):
                pass # 503 while it loads
            time.sleep(0.05)
        raise AssertionError(f"{self.name} is not healthy\n{self.printed()}")
