#!/usr/bin/env python3
"""Run Shoal and other programs on the same model in alternation, and write how they compare.

  compare.py --model M.gguf --peer llama.cpp=/path/to/bin [--peer ik=/path/to/bin] --threads 1,2

Round by round every program measures every case: A B C, A B C, … Each measurement is a process of its
own. Shoal probes the machine just before and just after each of its runs (read bandwidth for decode,
int8 dot products for prefill); a pair of probes that differ by more than 5 % is marked, and does not
count for the fraction of the limit. Results are a table and, with --json, everything that was seen.
docs/benchmarks.md says how to read them. Only the standard library is needed.
"""
import argparse
import datetime
import json
import os
import pathlib
import shlex
import sys

import programs
import summary

ROOT = pathlib.Path(__file__).resolve().parents[2]
FEWEST_ROUNDS = 5


def numbers(text):
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 1 or len(set(found)) != len(found):
        raise argparse.ArgumentTypeError(f"expected different numbers from 1 up, found {text!r}")
    return found


def positive(text):
    return numbers(text)[0] if "," not in text else numbers("")


def named(text):
    name, equals, value = text.partition("=")
    if not name or not equals or not value or name == "shoal":
        raise argparse.ArgumentTypeError(f"expected NAME=…, found {text!r}")
    return name, value


def options(arguments):
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--model", required=True, help="GGUF file")
    p.add_argument("--shoal", default=ROOT / "build" / "release" / "shoal", help="the binary")
    p.add_argument("--peer", type=named, action="append", default=[], metavar="NAME=FOLDER",
                   help="a folder with llama-bench and llama-batched-bench; again for more")
    p.add_argument("--peer-args", type=named, action="append", default=[], metavar="NAME=ARGUMENTS",
                   help="more arguments for that peer, as one word")
    p.add_argument("--threads", type=numbers, default=[os.cpu_count()], metavar="N,…")
    p.add_argument("--cases", default="prefill,decode,batched", metavar="CASE,…")
    p.add_argument("--prompt", type=positive, default=512, help="tokens of a prefill")
    p.add_argument("--decode", type=positive, default=128, help="tokens of a decode")
    p.add_argument("--batches", type=numbers, default=[1, 2, 4, 8, 16], metavar="N,…",
                   help="sequences decoded together, in the case batched")
    p.add_argument("--batched-prompt", type=positive, default=64, help="context of each of them")
    p.add_argument("--batched-decode", type=positive, default=32, help="tokens of each of them")
    p.add_argument("--rounds", type=positive, default=FEWEST_ROUNDS)
    p.add_argument("--timeout", type=positive, default=900, help="seconds for one process")
    p.add_argument("--json", metavar="FILE", help="write everything here")
    a = p.parse_args(arguments)
    a.cases = a.cases.split(",")
    known = {"prefill", "decode", "batched"}
    if not set(a.cases) <= known:
        p.error(f"--cases: expected some of {', '.join(sorted(known))}, found {','.join(a.cases)}")
    unknown = {name for name, _ in a.peer_args} - {name for name, _ in a.peer}
    if unknown:
        p.error(f"--peer-args: no --peer {', '.join(sorted(unknown))}")
    return a


def cases_of(a):
    made = {"prefill": programs.Case("prefill", a.prompt, 0),
            "decode": programs.Case("decode", 0, a.decode),
            "batched": programs.Case("batched", a.batched_prompt, a.batched_decode, a.batches)}
    return [made[name] for name in a.cases]


def measure_all(a, contestants, say):
    """{(case name, threads): {program: {"tok_s": […], "probed": […]}}}, a value for every round."""
    rows = {}
    for threads in a.threads:
        for i in range(a.rounds):
            for case in cases_of(a):
                for program in contestants:
                    say(f"{threads} threads, round {i + 1} of {a.rounds}: {case.kind}, {program.name}")
                    for name, (tok_s, probed) in program.measure(a.model, case, threads).items():
                        row = rows.setdefault((name, threads), {})
                        runs = row.setdefault(program.name, {"tok_s": [], "probed": []})
                        runs["tok_s"].append(tok_s)
                        if probed is not None:
                            runs["probed"].append(probed)
    return rows


def compare(a, say):
    extra = {name: shlex.split(words) for name, words in a.peer_args}
    contestants = [programs.Shoal(a.shoal, a.timeout)]
    contestants += [programs.Llama(name, folder, a.timeout, extra.get(name, ()))
                    for name, folder in a.peer]
    model = pathlib.Path(a.model).resolve()
    a.model = model
    if not model.is_file():
        raise programs.MeasureError(f"{model}: no such file")
    report = {"date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
              "machine": programs.machine(),
              "model": {"file": model.name, "bytes": model.stat().st_size}, "rounds": a.rounds}
    rows = measure_all(a, contestants, say)
    report["programs"] = {p.name: p.describe(a.model) for p in contestants}
    report["results"] = summary.summarise(rows, contestants[0].name)
    return report


def print_report(report):
    machine = report["machine"]
    print(f"{report['model']['file']}, {report['model']['bytes'] / 1e6:.0f} MB; "
          f"{machine['processor']}, {machine['processors']} processors, load average "
          f"{machine['load_average']:.1f} at the start; {report['date']}")
    print(f"median (least … most) of {report['rounds']} rounds in alternation\n")
    print(summary.table(report["results"], "shoal"), end="")
    if report["rounds"] < FEWEST_ROUNDS:
        print(f"\nfewer than {FEWEST_ROUNDS} rounds: an impression, not a result")


def main(arguments=None):
    a = options(arguments)

    def say(line):
        print(line, file=sys.stderr, flush=True)

    try:
        report = compare(a, say)
        if a.json:
            pathlib.Path(a.json).write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    except (programs.MeasureError, OSError) as error:
        sys.exit(f"compare.py: {error}")
    print_report(report)


if __name__ == "__main__":
    main()
