"""Fixtures of the end-to-end tests: the binary, workers, servers and models.

    SHOAL_BINARY       the program under test (build/release/shoal)
    SHOAL_DEMO_MODEL   stands in for models/demo/shoal-demo-q8_0.gguf
    SHOAL_TEST_SLOWNESS  stretches every deadline (sanitizers)
"""
import json
import os
import pathlib
import shutil
import types
import urllib.request

import pytest

from shoal_process import Background, Server, Shoal

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "data"
MODELS = {
    "demo": pathlib.Path(os.environ.get("SHOAL_DEMO_MODEL",
                                        ROOT / "models" / "demo" / "shoal-demo-q8_0.gguf")),
    "stories260K": SHARED / "models" / "stories260K" / "stories260K.gguf",
    "story-656k-hf": SHARED / "models" / "story-656k-hf",
    "window": ROOT / "tests" / "golden" / "window",
}
GOLDEN_MODELS = ["stories260K", "story-656k-hf"]


NOBODY = 65534


def private_copy(path, folder):
    """A copy of a model that only its owner can read."""
    copy = folder / path.name
    if path.is_dir():
        shutil.copytree(path, copy)
    else:
        shutil.copy(path, copy)
    folder.chmod(0o700)
    return copy


def binary_under_test():
    return pathlib.Path(os.environ.get("SHOAL_BINARY", ROOT / "build" / "release" / "shoal"))


def model_path(name):
    """The demo model belongs to the repository; the others are there or their tests are skipped."""
    path = MODELS[name]
    if name not in ("demo", "window") and not path.exists():
        pytest.skip(f"no {path}")
    assert path.exists(), f"{path} is missing"
    return path


def golden(name, file_name):
    path = SHARED / "models" / name / file_name
    if not path.exists():
        pytest.skip(f"no {path}")
    return json.loads(path.read_text("utf-8"))


def shared_file(*parts):
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"no {path}")
    return path


@pytest.fixture(scope="session")
def shoal():
    binary = binary_under_test()
    assert binary.is_file(), f"no {binary}: run scripts/build.sh, or set SHOAL_BINARY"
    return Shoal(binary)


class Processes:
    """What tests start; everything is stopped when the fixture's scope ends."""

    def __init__(self, binary, folder):
        self.binary, self.folder, self.started = binary, folder, []

    def _start(self, kind, arguments, environment, user=None):
        name = f"{kind.__name__.lower()}{len(self.started)}-{arguments[0]}"
        process = kind(self.binary, arguments, self.folder, name, environment, user)
        self.started.append(process)
        return process

    def worker(self, *arguments, **environment):
        return self._start(Background, ["worker", "--listen", "127.0.0.1:0", *arguments],
                           environment)

    def stranger(self, *arguments):
        """A worker that cannot read what only we may, as if it were on another machine."""
        if os.geteuid() != 0:
            pytest.skip("only root can start a worker as somebody else")
        return self._start(Background, ["worker", "--listen", "127.0.0.1:0", *arguments], None,
                           user=NOBODY)

    def workers(self, n, *arguments, **environment):
        """n addresses of workers that are ready."""
        started = [self.worker(*arguments, **environment) for _ in range(n)]
        return [worker.address() for worker in started]

    def server(self, model, *arguments, **environment):
        """A server that answers /health with 200."""
        process = self._start(Server, ["serve", model, "--listen", "127.0.0.1:0", *arguments],
                              environment)
        process.wait_until_healthy()
        return process

    def stop_all(self):
        complaints = []
        for process in self.started:
            try:
                status = process.stop()
                if status not in (0, -9): # -9: the test killed it
                    complaints.append(f"{process.name} ended with {status}\n{process.printed()}")
            except AssertionError as error:
                complaints.append(str(error))
        self.started.clear()
        assert not complaints, "\n".join(complaints)


@pytest.fixture
def processes(shoal, tmp_path):
    """Workers and servers of one test."""
    group = Processes(shoal.binary, tmp_path)
    yield group
    group.stop_all()


@pytest.fixture(scope="module")
def shared_processes(shoal, tmp_path_factory):
    """Workers and servers that the tests of a file use one after the other."""
    group = Processes(shoal.binary, tmp_path_factory.mktemp("processes"))
    yield group
    group.stop_all()


@pytest.fixture(scope="module")
def server(shared_processes):
    """base_url, model_path and model_id of one server for all tests of a file."""
    path = model_path("demo" if MODELS["demo"].exists() else "stories260K")
    process = shared_processes.server(path)
    with urllib.request.urlopen(f"{process.base_url()}/v1/models", timeout=30) as answer:
        models = json.load(answer)["data"]
    yield types.SimpleNamespace(base_url=process.base_url(), model_path=path,
                                model_id=models[0]["id"])
    assert process.process.poll() is None, f"the server died\n{process.printed()}"


def pytest_sessionfinish(session, exitstatus):
    """A file whose every test was skipped or left out is a skipped ctest (exit status 77)."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or exitstatus not in (pytest.ExitCode.OK,
                                              pytest.ExitCode.NO_TESTS_COLLECTED):
        return
    left_out = reporter.stats.get("skipped") or reporter.stats.get("deselected")
    if left_out and not reporter.stats.get("passed"):
        session.exitstatus = 77
