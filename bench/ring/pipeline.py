#!/usr/bin/env python3
"""How full a ring is: stages that take a known time for a step, in real processes over gRPC.

  pipeline.py [--stages 2,4,8] [--step-us 20000,2000] [--json FILE]

Each process runs the simulated backend (--backend sim), whose layers take --step-us for a step and wait
rather than compute. So everything else is what is measured: schedule, flights, frames, wake-ups. There
are --rows requests for each stage. One process alone is run first, with as many rows in a step; the ring's share is its throughput over
stages x that, the stages' work being split over them. With --no-overlap, beside it, one step at a time is on its
way. docs/benchmarks.md says how to read it. Only the standard library is needed.
"""
import argparse
import datetime
import json
import pathlib
import statistics
import sys
import tempfile

import rings

sys.path.insert(0, str(rings.ROOT / "bench"))
import gguf_file
import programs

WANTED = {20000: {2: 0.97, 4: 0.95, 8: 0.92}, 2000: {2: 0.90, 4: 0.88, 8: 0.85}}
SHAPE = gguf_file.Shape(layers=8, hidden=256, ffn=64, heads=1, kv_heads=1, head_size=32, context=16384)
SETTLE_TOKENS = 5


def numbers(text):
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 1:
        raise argparse.ArgumentTypeError(f"expected numbers from 1 up, found {text!r}")
    return found


def options(arguments):
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--shoal", default=rings.ROOT / "build" / "release" / "shoal", help="the binary")
    p.add_argument("--stages", type=numbers, default=[2, 4, 8], metavar="N,…")
    p.add_argument("--step-us", type=numbers, default=[20000, 2000], metavar="US,…",
                   help="what a stage takes for a step")
    p.add_argument("--rows", type=int, default=4, help="of a step: requests for each stage")
    p.add_argument("--seconds", type=float, default=8, help="of a stretch that is measured")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--quick", action="store_true", help="one round of 1.5 s: does it work?")
    p.add_argument("--json", metavar="FILE", help="write everything here")
    a = p.parse_args(arguments)
    if a.quick:
        a.rounds, a.seconds = 1, min(a.seconds, 1.5)
    if a.rows < 1 or a.rounds < 1 or a.seconds <= 0 or max(a.stages) > SHAPE.layers:
        p.error(f"expected at least one row, round and moment, and at most {SHAPE.layers} stages")
    return a


def measure(a, model, n_stages, step_us, overlap):
    """One stretch of one ring."""
    n = a.rows * (n_stages if overlap else 1)
    most = int(a.seconds * 1.5 * 1e6 / step_us) + 4000
    bodies = [rings.completion(f"request {i}", min(most, SHAPE.context - 64)) for i in range(n)]
    flags = ["--threads", 1, "--backend", "sim", "--sim-step-us", step_us]
    lead_flags = ["--slots", n, "--draft", 0, *([] if overlap else ["--no-overlap"])]
    with rings.Ring(a.shoal, model, n_stages, flags, lead_flags) as ring:
        with rings.Requests(ring, bodies) as requests:
            return rings.rates(*rings.steady(ring, requests, SETTLE_TOKENS, a.seconds))


def share(ring, alone):
    """Of stages x one stage's throughput. The work of a step is split over the stages: a process
    with all of it would take stages x as long, so its throughput is alone / stages."""
    return ring["tok_s"] / alone["tok_s"]


def summarise(runs):
    """The median share of the rounds, and of each stage's busy share."""
    shares = [share(ring, alone) for ring, alone in runs]
    busy = [statistics.median(stage) for stage in zip(*(ring["busy"] for ring, _ in runs))]
    return {"share": statistics.median(shares), "least": min(shares), "most": max(shares),
            "tok_s": statistics.median(ring["tok_s"] for ring, _ in runs), "busy": busy,
            "rows": statistics.median(ring["rows"] for ring, _ in runs), "runs": [r for r, _ in runs]}


def measure_all(a, model, say):
    results = []
    for step_us in a.step_us:
        runs = {}
        alone = []
        for i in range(a.rounds):
            say(f"{step_us} us, round {i + 1} of {a.rounds}: one stage")
            alone.append(measure(a, model, 1, step_us, True))
            for n in a.stages:
                for overlap in (True, False):
                    say(f"{step_us} us, round {i + 1} of {a.rounds}: {n} stages"
                        f"{'' if overlap else ', one step at a time'}")
                    ring = measure(a, model, n, step_us, overlap)
                    runs.setdefault((n, overlap), []).append((ring, alone[-1]))
        entry = {"step_us": step_us, "alone": {
            "tok_s": statistics.median(r["tok_s"] for r in alone),
            "busy": statistics.median(r["busy"][0] for r in alone), "runs": alone}, "rings": []}
        for n in a.stages:
            entry["rings"].append({"stages": n, "wanted": WANTED.get(step_us, {}).get(n),
                                   "overlap": summarise(runs[n, True]),
                                   "no_overlap": summarise(runs[n, False])})
        results.append(entry)
    return results


def percent(value):
    return "-" if value is None else f"{100 * value:.1f} %"


def table(results):
    lines = ["| step of a stage | stages | tok/s | of stages x one stage | wanted | stages busy | "
             "one step at a time |", "|---|---|---|---|---|---|---|"]
    for entry in results:
        ms = f"{entry['step_us'] / 1000:g} ms"
        lines.append(f"| {ms} | 1 | {entry['alone']['tok_s']:.1f} | - | - | "
                     f"{percent(entry['alone']['busy'])} | - |")
        for ring in entry["rings"]:
            s = ring["overlap"]
            lines.append(
                f"| {ms} | {ring['stages']} | {s['tok_s']:.1f} | {percent(s['share'])} "
                f"({percent(s['least'])} … {percent(s['most'])}) | {percent(ring['wanted'])} | "
                f"{percent(min(s['busy']))} … {percent(max(s['busy']))} | "
                f"{percent(ring['no_overlap']['share'])} |")
    return "\n".join(lines)


def main(arguments=None):
    a = options(arguments)

    def say(line):
        print(line, file=sys.stderr, flush=True)

    try:
        with tempfile.TemporaryDirectory() as folder:
            model = gguf_file.write_model(pathlib.Path(folder) / "sim.gguf", SHAPE)
            report = {"date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
                      "machine": programs.machine(), "rows": a.rows, "rounds": a.rounds,
                      "seconds": a.seconds, "results": measure_all(a, model, say)}
        if a.json:
            pathlib.Path(a.json).write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    except (programs.MeasureError, OSError) as error:
        sys.exit(f"pipeline.py: {error}")
    machine = report["machine"]
    print(f"{machine['processor']}, {machine['processors']} processors, load average "
          f"{machine['load_average']:.1f} at the start; {report['date']}\n")
    print(table(report["results"]))


if __name__ == "__main__":
    main()
