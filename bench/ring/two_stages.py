#!/usr/bin/env python3
"""What a second one-thread process on a processor of its own gains, with real computation.

  two_stages.py --model models/1b-q4_0.gguf [--peer PATH/build/bin] [--json FILE]

One process with one thread on the first processor, and a ring of two such, the layers halved, on the first
and the second: round by round, in alternation, each serves the same work over HTTP. The work is prompts
without answers (prefill), many at once and a single long one, and a stretch of decoding. --peer is a folder
of llama.cpp with llama-bench and an RPC server: its gain from a second server is shown beside.
docs/benchmarks.md says how to read it. Only the standard library is needed, and taskset.
"""
import argparse
import datetime
import json
import os
import pathlib
import random
import shutil
import socket
import sys
import tempfile
import time

import rings

import programs
import summary

# name: (prompts at once, tokens of each)
WORK = {"prefill": (4, 1024), "8 prompts": (8, 400), "long prompt": (1, 2048)}
WANTED = {"prefill": 1.85, "8 prompts": 1.85, "long prompt": 1.7}
WANTED_DECODE = 0.95 # of the rate of the slowest stage
RPC_SERVERS = ("rpc-server", "ggml-rpc-server")


def options(arguments):
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--model", required=True, help="GGUF file")
    p.add_argument("--shoal", default=rings.ROOT / "build" / "release" / "shoal", help="the binary")
    p.add_argument("--cpus", default="0,1", help="the two processors (default 0,1)")
    p.add_argument("--first-layers", type=int, help="of the worker (default: half of them)")
    p.add_argument("--decode-layers", type=int,
                   help="of the worker while decoding: the lead has the head, too (default: as above)")
    p.add_argument("--streams", type=int, default=6, help="that decode at once")
    p.add_argument("--seconds", type=float, default=6, help="of decoding that is measured")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--peer", metavar="FOLDER", help="llama-bench and an RPC server of llama.cpp")
    p.add_argument("--peer-port", type=int, default=0, help="the first of two (default: free ones)")
    p.add_argument("--timeout", type=int, default=900, help="seconds for one process")
    p.add_argument("--quick", action="store_true",
                   help="one round of short prompts: does it work?")
    p.add_argument("--json", metavar="FILE", help="write everything here")
    a = p.parse_args(arguments)
    a.cpus = [int(cpu) if cpu.isdigit() else -1 for cpu in a.cpus.split(",")]
    if len(a.cpus) != 2 or min(a.cpus) < 0 or not set(a.cpus) <= os.sched_getaffinity(0):
        p.error(f"--cpus: expected two of {sorted(os.sched_getaffinity(0))}, as 0,1")
    if shutil.which("taskset") is None:
        p.error("taskset (util-linux) is needed, and not found")
    a.work = {name: (n, tokens // 32 if a.quick else tokens) for name, (n, tokens) in WORK.items()}
    if a.quick:
        a.rounds, a.seconds = 1, min(a.seconds, 1)
    if a.rounds < 1 or a.streams < 1 or a.seconds <= 0:
        p.error("expected rounds, streams and seconds of decoding above 0")
    return a


def prompts(n, n_tokens, vocab, seed):
    """Token ids that begin differently, so that nothing is computed before."""
    source = random.Random(seed)
    return [[source.randrange(vocab // 2, vocab) for _ in range(n_tokens)] for _ in range(n)]


def model_of(a):
    """(layers, vocabulary, context)."""
    text = programs.run([a.shoal, "inspect", a.model, "--json"], a.timeout)
    model = programs.field(programs.parse_json(text, "shoal"), "model", "shoal")
    return tuple(int(programs.number(model, key, "shoal")) for key in ("layers", "vocab", "context"))


def prefill(ring, work, vocab, seed):
    """Seconds from sending all prompts to the last of the first tokens, how much of them each stage
    computed, and the rows of a step."""
    n, n_tokens = work
    bodies = [rings.completion(prompt, 1) for prompt in prompts(n, n_tokens, vocab, seed)]
    before = ring.counters()
    begin = time.monotonic()
    with rings.Requests(ring, bodies) as requests:
        answers = requests.wait()
    seconds = time.monotonic() - begin
    after = ring.counters()
    for answer in answers:
        usage = programs.field(answer, "usage", "shoal")
        programs.expect(usage, "prompt_tokens", n_tokens, "shoal")
        programs.expect(usage, "completion_tokens", 1, "shoal")
    steps = after["shoal_steps_total"] - before["shoal_steps_total"]
    return {"seconds": seconds, "busy": [b / seconds for b in rings.busy_seconds(before, after)],
            "rows": n * n_tokens / steps}


def decode_rates(ring, a, context):
    n_tokens = min(context - 64, 4096)
    bodies = [rings.completion(f"stream {i}", n_tokens) for i in range(a.streams)]
    with rings.Requests(ring, bodies) as requests:
        return rings.rates(*rings.steady(ring, requests, 3, a.seconds))


def ring_of(a, n_stages, first_layers):
    """Processes of one thread: the lead on the first processor."""
    lead_flags = ["--profile", "throughput", "--slots", max(16, a.streams), "--draft", 0,
                  "--no-prefix-cache", "--kv-mb", 400]
    return rings.Ring(a.shoal, a.model, n_stages, ["--threads", 1], lead_flags,
                      cpus=[a.cpus[0]] if n_stages == 1 else [a.cpus[1], a.cpus[0]],
                      split=[first_layers] if n_stages == 2 else None)


def measure(a, n_stages, model, seed):
    """{work: what prefill says} and the decoding's rates."""
    layers, vocab, context = model
    first = a.first_layers or max(1, layers // 2)
    with ring_of(a, n_stages, first) as ring:
        prefill(ring, (1, 32), vocab, seed) # to warm up
        done = {name: prefill(ring, work, vocab, seed + i)
                for i, (name, work) in enumerate(a.work.items(), 1)}
        if n_stages == 1 or a.decode_layers in (None, first):
            return done, decode_rates(ring, a, context)
    with ring_of(a, n_stages, a.decode_layers) as ring:
        return done, decode_rates(ring, a, context)


# --- llama.cpp's RPC ---

def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Peer:
    """llama-bench alone on one processor, over one RPC server, over two; each with one thread."""

    def __init__(self, a):
        self.a, self.folder = a, pathlib.Path(a.peer).resolve()
        found = [self.folder / name for name in RPC_SERVERS if (self.folder / name).exists()]
        if not found or not (self.folder / "llama-bench").exists():
            raise rings.MeasureError(f"{self.folder}: expected llama-bench and one of "
                                     f"{', '.join(RPC_SERVERS)}")
        self.server = found[0]

    def bench(self, servers):
        cpu = self.a.cpus[0]
        command = ["taskset", "-c", str(cpu), self.folder / "llama-bench", "-m", self.a.model, "-p",
                   self.a.work["long prompt"][1], "-n", 32, "-t", 1, "-r", 1, "-o", "json"]
        if servers:
            command += ["-rpc", ",".join(servers), "-ngl", 99]
        answer = programs.parse_json(programs.run(command, self.a.timeout), "llama.cpp")
        if not isinstance(answer, list) or len(answer) != 2:
            raise rings.MeasureError(f"llama.cpp: expected two results, found {str(answer)[:80]}")
        return {"prefill" if programs.field(r, "n_prompt", "llama.cpp") else "decode":
                programs.number(r, "avg_ts", "llama.cpp") for r in answer}

    def measure(self, n_servers):
        """{phase: tok/s}"""
        processes, addresses = [], []
        with tempfile.TemporaryDirectory() as folder:
            try:
                for i in range(n_servers):
                    port = self.a.peer_port + i if self.a.peer_port else free_port()
                    command = [self.server, "-H", "127.0.0.1", "-p", port, "-t", 1]
                    processes.append(rings.Process(f"rpc{i}", command, folder, self.a.cpus[i]))
                    addresses.append(f"127.0.0.1:{port}")
                    self.wait_for(port, processes[-1])
                return self.bench(addresses)
            finally:
                for process in processes:
                    process.stop()

    @staticmethod
    def wait_for(port, process):
        until = time.monotonic() + rings.START_SECONDS
        while time.monotonic() < until:
            process.check()
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                time.sleep(0.05)
        raise rings.MeasureError(f"{process.name}: does not listen: {process.said()}")


# --- what it comes to ---

def summarise(a, rounds):
    """rounds: [{1: ({work: what prefill says}, rates), 2: …}]."""
    entries = []
    for name, (n, tokens) in a.work.items():
        runs = {k: [r[k][0][name]["seconds"] for r in rounds] for k in (1, 2)}
        busy = [max(r[2][0][name]["busy"]) for r in rounds]
        entries.append({"work": name, "prompts": n, "tokens": tokens, "wanted": WANTED[name],
                        "tok_s": {k: summary.spread([n * tokens / s for s in runs[k]]) for k in runs},
                        "seconds": {k: summary.spread(runs[k]) for k in runs},
                        "gain": summary.ratios(runs[1], runs[2]), "busiest": summary.spread(busy),
                        "runs": {k: [r[k][0][name] for r in rounds] for k in (1, 2)}})
    one, two = ([r[k][1] for r in rounds] for k in (1, 2))
    # What the slowest stage could do without ever waiting is the ring's rate over its busy share.
    return {"prefill": entries, "decode": {
        "tok_s": {1: summary.spread([r["tok_s"] for r in one]),
                  2: summary.spread([r["tok_s"] for r in two])},
        "of_slowest_stage": summary.spread([max(r["busy"]) for r in two]), "wanted": WANTED_DECODE,
        "busy": [r["busy"] for r in two],
        "gain": summary.ratios([r["tok_s"] for r in two], [r["tok_s"] for r in one])}}


def summarise_peer(rounds):
    """rounds: [{servers: {phase: tok/s}}]; gains over the local process and over one server."""
    return {phase: {"tok_s": {k: summary.spread([r[k][phase] for r in rounds]) for k in (0, 1, 2)},
                    "over_local": summary.ratios([r[2][phase] for r in rounds],
                                                 [r[0][phase] for r in rounds]),
                    "over_one": summary.ratios([r[2][phase] for r in rounds],
                                               [r[1][phase] for r in rounds])}
            for phase in ("prefill", "decode")}


def measure_all(a, say):
    model, peer = model_of(a), Peer(a) if a.peer else None
    ours, theirs = [], []
    for i in range(a.rounds):
        ours.append({})
        for k in (1, 2):
            say(f"round {i + 1} of {a.rounds}: {k} process{'' if k == 1 else 'es'}")
            ours[-1][k] = measure(a, k, model, 1000 * (i + 1))
        if peer is None:
            continue
        theirs.append({})
        for k in (0, 1, 2):
            say(f"round {i + 1} of {a.rounds}: llama.cpp, {k or 'no'} RPC servers")
            theirs[-1][k] = peer.measure(k)
    report = summarise(a, ours)
    if peer is not None:
        report["peer"] = summarise_peer(theirs)
    return report


def table(report):
    lines = ["| work | one process, tok/s | two stages, tok/s | gain | wanted | busiest stage |",
             "|---|---|---|---|---|---|"]
    for e in report["prefill"]:
        lines.append(f"| {e['work']}: {e['prompts']} x {e['tokens']} tokens | "
                     f"{summary.speed_cell(e['tok_s'][1])} | {summary.speed_cell(e['tok_s'][2])} | "
                     f"{summary.ratio_cell(e['gain'])} | {e['wanted']} | "
                     f"{100 * e['busiest']['median']:.0f} % |")
    d = report["decode"]
    lines.append(f"| decode | {summary.speed_cell(d['tok_s'][1])} | {summary.speed_cell(d['tok_s'][2])} | "
                 f"{summary.ratio_cell(d['gain'])} | - | see below |")
    lines.append(f"| decode: of the rate of the slowest stage | - | - | "
                 f"{summary.ratio_cell(d['of_slowest_stage'])} | {d['wanted']} | - |")
    for phase, e in report.get("peer", {}).items():
        local = summary.speed_cell(e["tok_s"][0])
        lines.append(f"| llama.cpp RPC, {phase} | {local} | {summary.speed_cell(e['tok_s'][2])} | "
                     f"{summary.ratio_cell(e['over_local'])}; over one server "
                     f"{summary.ratio_cell(e['over_one'])} | - | - |")
    return "\n".join(lines)


def main(arguments=None):
    a = options(arguments)

    def say(line):
        print(line, file=sys.stderr, flush=True)

    try:
        a.model = pathlib.Path(a.model).resolve(strict=True)
        report = {"date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
                  "machine": programs.machine(), "model": a.model.name, "rounds": a.rounds}
        report.update(measure_all(a, say))
        if a.json:
            pathlib.Path(a.json).write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    except (programs.MeasureError, OSError) as error:
        sys.exit(f"two_stages.py: {error}")
    machine = report["machine"]
    print(f"{report['model']}; {machine['processor']}, {machine['processors']} processors, load average "
          f"{machine['load_average']:.1f} at the start; {report['date']}\n"
          f"median (least … most) of {report['rounds']} rounds in alternation, a thread each\n")
    print(table(report))


if __name__ == "__main__":
    main()
