"""Connections that gRPC 1.51 gives up by mistake (tests/support/false_alarms.h): a ring starts all the
same, or says why not. The mistake is made to happen in one process of the ring, to chosen
connections of it. A gRPC without it passes too.

    SHOAL_FALSE_ALARMS   the library to preload
"""
import os
import pathlib
import sys

import pytest

import gguf_file
from conftest import ROOT

LIBRARY = pathlib.Path(os.environ.get(
    "SHOAL_FALSE_ALARMS", ROOT / "build" / "release" / "tests" / "support" / "libfalse_alarms.so"))

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="gRPC uses epoll on Linux only")

N_WORKERS = 2
CALLS, STREAMS = 0, N_WORKERS # the lead connects to each worker for calls, then for its stream


class Alarms:
    """The environment of a process with `n` false alarms after `skip` connections in good order."""

    def __init__(self, folder, skip, n):
        self.seen_file = folder / "seen"
        # The library is built like the program, but the loader puts it before the sanitizer.
        options = f"{os.environ.get('ASAN_OPTIONS', '')}:verify_asan_link_order=0"
        self.environment = {"LD_PRELOAD": str(LIBRARY), "FALSE_ALARMS": f"{skip},{n}",
                            "FALSE_ALARMS_SEEN": str(self.seen_file), "ASAN_OPTIONS": options}

    def seen(self):
        """A character for each connection: x for a false alarm."""
        return self.seen_file.read_text("ascii")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    assert LIBRARY.is_file(), f"no {LIBRARY}: run scripts/build.sh --tests, or set SHOAL_FALSE_ALARMS"
    return gguf_file.write_model(tmp_path_factory.mktemp("model") / "small.gguf", gguf_file.Shape())


@pytest.fixture(scope="module")
def alone(shoal, model):
    return generate(shoal, model)


def generate(shoal, model, *flags, **environment):
    return shoal.json("run", model, "-p", "a b c", "-n", 8, *flags, **environment)["ids"]


@pytest.mark.parametrize("skip", [CALLS, STREAMS])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_lead(shoal, model, alone, processes, tmp_path, skip, n):
    nodes = ",".join(processes.workers(N_WORKERS))
    alarms = Alarms(tmp_path, skip, n)
    assert generate(shoal, model, "--nodes", nodes, **alarms.environment) == alone
    assert alarms.seen().startswith("." * skip + "x" * n)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_worker(shoal, model, alone, processes, tmp_path, n):
    """A worker connects to the next one only."""
    alarms = Alarms(tmp_path, 0, n)
    nodes = ",".join([processes.worker(**alarms.environment).address(), *processes.workers(1)])
    assert generate(shoal, model, "--nodes", nodes) == alone
    assert alarms.seen().startswith("x" * n)


@pytest.mark.parametrize("skip", [CALLS, STREAMS])
def test_without_end(shoal, model, processes, tmp_path, skip):
    addresses = processes.workers(N_WORKERS)
    alarms = Alarms(tmp_path, skip, 1000)
    result = shoal.run("run", model, "-p", "a", "-n", 1, "--nodes", ",".join(addresses),
                       **alarms.environment)
    assert alarms.seen().startswith("." * skip + "x")
    if result.status != 0:
        line = result.error_line()
        assert "cannot reach" in line and any(address in line for address in addresses), line
