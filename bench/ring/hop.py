#!/usr/bin/env python3
"""What a hop costs: a decode step of one sequence over rings of more and more stages on loopback.

  hop.py [--stages 1,2,3,4] [--positions 100,8000] [--hidden 2048] [--json FILE]

Each process runs the simulated backend with a step of known length, so a ring of N stages takes N times
that, and what is over is what N hops cost: frame, checksum, gRPC, wake-ups, on the way to every stage and
back to the lead. The median step of each run counts, the runs of all rings alternate. A cost that grows
with the position would show between --positions. Only the standard library is needed.
"""
import argparse
import datetime
import json
import pathlib
import statistics
import sys
import tempfile

import pipeline
import rings

import gguf_file
import programs

WANTED_US = 80
DECODE = 300


def options(arguments):
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--shoal", default=rings.ROOT / "build" / "release" / "shoal", help="the binary")
    p.add_argument("--stages", type=pipeline.numbers, default=[1, 2, 3, 4], metavar="N,…")
    p.add_argument("--positions", type=pipeline.numbers, default=[100, 8000], metavar="N,…",
                   help="where the decoding begins")
    p.add_argument("--hidden", type=int, default=2048, help="values per row of a frame")
    p.add_argument("--step-us", type=int, default=1500, help="what a stage takes for a step")
    p.add_argument("--decode", type=int, default=DECODE, help="steps of a run")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--quick", action="store_true", help="one round of 20 steps: does it work?")
    p.add_argument("--json", metavar="FILE", help="write everything here")
    a = p.parse_args(arguments)
    if a.quick:
        a.rounds, a.decode = 1, min(a.decode, 20)
    if a.rounds < 1 or a.decode < 1 or a.hidden < 64 or a.hidden % 32 or a.step_us < 1:
        p.error("expected rounds, steps and a step's time from 1 up, and a hidden size that is a "
                "multiple of 32, from 64 up")
    return a


def shape_of(a):
    """As many layers as stages at most; narrow inside, so that hashing is over long before the step."""
    return gguf_file.Shape(layers=max(a.stages), hidden=a.hidden, ffn=64, heads=1, kv_heads=1,
                           head_size=32, context=max(a.positions) + a.decode)


class Workers:
    """Simulated workers that one lead after the other uses."""

    def __init__(self, a, n):
        self.a, self.n = a, n

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory()
        self.processes = []
        try:
            for i in range(self.n):
                command = [self.a.shoal, "worker", "--listen", "127.0.0.1:0", *flags_of(self.a)]
                self.processes.append(rings.Process(f"worker{i}", command, self.folder.name))
            self.addresses = [process.address() for process in self.processes]
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.stop()
        self.folder.cleanup()


def flags_of(a):
    return ["--threads", 1, "--backend", "sim", "--sim-step-us", a.step_us]


def median_step_us(a, model, addresses, position):
    """Of one run of `shoal bench model`: a prompt up to the position, then steps of one row."""
    command = [a.shoal, "bench", "model", model, "-p", position, "-n", a.decode, "-r", 1, "--json",
               *flags_of(a)]
    if addresses:
        command += ["--nodes", ",".join(addresses)]
    answer = programs.parse_json(programs.run(command, 600), "shoal")
    batches = programs.field(answer, "batches", "shoal")
    runs = programs.field(programs.field(batches[0], "decode", "shoal"), "runs", "shoal")
    return programs.number(runs[0], "step_us", "shoal")


def cost_of(step_us, n_stages, stage_us):
    """What a hop costs: what a step takes beyond the stages, over the hops. With one stage there are none:
    then it is what the lead itself adds."""
    return (step_us - n_stages * stage_us) / n_stages


def measure_all(a, model, say):
    """[{stages, position, step_us: spread}]"""
    runs = {}
    with Workers(a, max(a.stages) - 1) as workers:
        for i in range(a.rounds):
            for position in a.positions:
                for n in a.stages:
                    say(f"round {i + 1} of {a.rounds}: {n} stages from position {position}")
                    us = median_step_us(a, model, workers.addresses[:n - 1], position)
                    runs.setdefault((n, position), []).append(us)
    return [{"stages": n, "position": position, "step_us": us,
             "hop_us": [cost_of(value, n, a.step_us) for value in us],
             "median_hop_us": statistics.median(cost_of(value, n, a.step_us) for value in us)}
            for (n, position), us in sorted(runs.items())]


def table(a, results):
    lines = ["| stages | position | median step | over the stages, per hop | wanted |",
             "|---|---|---|---|---|"]
    for r in results:
        us = r["hop_us"]
        wanted = "-" if r["stages"] == 1 else f"{WANTED_US} µs"
        lines.append(f"| {r['stages']} | {r['position']} | {statistics.median(r['step_us']):.0f} µs | "
                     f"{r['median_hop_us']:.0f} ({min(us):.0f} … {max(us):.0f}) µs | {wanted} |")
    return "\n".join(lines)


def main(arguments=None):
    a = options(arguments)

    def say(line):
        print(line, file=sys.stderr, flush=True)

    try:
        with tempfile.TemporaryDirectory() as folder:
            model = gguf_file.write_model(pathlib.Path(folder) / "sim.gguf", shape_of(a))
            report = {"date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
                      "machine": programs.machine(), "hidden": a.hidden, "stage_us": a.step_us,
                      "decode": a.decode, "rounds": a.rounds, "results": measure_all(a, model, say)}
        if a.json:
            pathlib.Path(a.json).write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    except (programs.MeasureError, OSError) as error:
        sys.exit(f"hop.py: {error}")
    machine = report["machine"]
    print(f"{machine['processor']}, {machine['processors']} processors, load average "
          f"{machine['load_average']:.1f} at the start; {report['date']}\n"
          f"hidden size {a.hidden}, a stage takes {a.step_us} us for a step\n")
    print(table(a, report["results"]))


if __name__ == "__main__":
    main()
