"""Running a program under measurement once, and reading what it says.

Every `measure` answers {case name: (tok/s, probed or None)}; `probed` is what the program did a second
(`rate`) beside the limit probed just `before` and just `after`, in the same unit. Anything unexpected
(exit status, text that is no JSON, a field that is missing or no positive number) is a
MeasureError that names the program and the finding: there is no default for a measurement.
"""
import json
import os
import pathlib
import subprocess
import tempfile


class MeasureError(Exception):
    pass


class Case:
    """What one process measures: kind "prefill", "decode" or "batched" (several batch sizes)."""

    def __init__(self, kind, prompt, decode, batches=(1,)):
        self.kind, self.prompt, self.decode, self.batches = kind, prompt, decode, tuple(batches)

    def name(self, batch=1):
        if self.kind == "prefill":
            return f"prefill {self.prompt}"
        if self.kind == "decode":
            return f"decode {self.decode}"
        return f"decode {self.decode} after {self.prompt}, {batch} sequences"


def run(command, timeout, with_stderr=False):
    """stdout (and, where asked for, stderr after it) of a command that has to succeed. It runs in a
    folder of its own, because some leave a log where they stand."""
    command = [str(word) for word in command]
    try:
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(command, capture_output=True, text=True, timeout=timeout,
                                  check=False, stdin=subprocess.DEVNULL, cwd=folder)
    except OSError as error:
        raise MeasureError(f"{command[0]}: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise MeasureError(f"{' '.join(command)}: not done after {timeout} s") from error
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["nothing on stderr"]
        raise MeasureError(f"{' '.join(command)}: exit status {done.returncode}: {lines[-1]}")
    return done.stdout + done.stderr if with_stderr else done.stdout


def parse_json(text, program):
    try:
        return json.loads(text)
    except ValueError as error:
        raise MeasureError(f"{program}: expected JSON, found {text[:60]!r}") from error


def field(data, name, program):
    if not isinstance(data, dict) or name not in data:
        found = ", ".join(sorted(data)[:12]) if isinstance(data, dict) else type(data).__name__
        raise MeasureError(f"{program}: expected a field \"{name}\", found {found or 'none'}")
    return data[name]


def number(data, name, program):
    value = field(data, name, program)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e15:
        raise MeasureError(f"{program}: expected \"{name}\" as a positive number, found {value!r}")
    return value


def expect(data, name, wanted, program):
    found = field(data, name, program)
    if found != wanted:
        raise MeasureError(f"{program}: expected \"{name}\" {wanted!r}, found {found!r}")


class Shoal:
    name = "shoal"

    def __init__(self, binary, timeout):
        self.binary, self.timeout = pathlib.Path(binary).resolve(), timeout

    def describe(self, model):
        """The kernels that this machine and SHOAL_CPU choose."""
        text = run([self.binary, "bench", "model", model, "-p", 1, "-n", 0, "-r", 1, "--no-probe",
                    "--json"], self.timeout)
        return {"binary": str(self.binary),
                "kernels": field(parse_json(text, self.name), "kernels", self.name)}

    def measure(self, model, case, threads):
        prompt = 0 if case.kind == "decode" else case.prompt
        decode = 0 if case.kind == "prefill" else case.decode
        text = run([self.binary, "bench", "model", model, "-p", prompt, "-n", decode, "-t", threads,
                    "-b", ",".join(map(str, case.batches)), "-r", 1, "--json"], self.timeout)
        return self.parse(text, case, threads)

    def parse(self, text, case, threads):
        answer = parse_json(text, self.name)
        expect(answer, "threads", threads, self.name)
        batches = field(answer, "batches", self.name)
        found = {}
        for batch, entry in zip(case.batches, batches):
            expect(entry, "batch", batch, self.name)
            phase = field(entry, "prefill" if case.kind == "prefill" else "decode", self.name)
            runs = field(phase, "runs", self.name)
            if not isinstance(runs, list) or len(runs) != 1:
                raise MeasureError(f"shoal: expected one run, found {runs!r}")
            probed = {key: number(runs[0], key, self.name) for key in ("rate", "before", "after")}
            found[case.name(batch)] = (number(runs[0], "tok_s", self.name), probed)
        if len(found) != len(case.batches):
            raise MeasureError(f"shoal: expected {len(case.batches)} batches, found {len(found)}")
        return found


class Llama:
    """llama.cpp, or a relative of it: a folder with llama-bench and llama-batched-bench. `extra` is for
    llama-bench alone: the two programs have different flags."""

    def __init__(self, name, folder, timeout, extra=()):
        self.name, self.folder, self.timeout = name, pathlib.Path(folder).resolve(), timeout
        self.extra, self.build = list(extra), None

    def describe(self, model):
        return {"folder": str(self.folder), "arguments": self.extra, "build": self.build}

    def measure(self, model, case, threads):
        if case.kind == "batched":
            return self.measure_batched(model, case, threads)
        prompt, decode = (case.prompt, 0) if case.kind == "prefill" else (0, case.decode)
        text = run([self.folder / "llama-bench", "-m", model, "-p", prompt, "-n", decode, "-t",
                    threads, "-r", 1, "-o", "json", *self.extra], self.timeout)
        return self.parse_bench(text, case, threads)

    def parse_bench(self, text, case, threads):
        answer = parse_json(text, self.name)
        if not isinstance(answer, list) or len(answer) != 1:
            raise MeasureError(f"{self.name}: expected one result, found {str(answer)[:60]}")
        prompt, decode = (case.prompt, 0) if case.kind == "prefill" else (0, case.decode)
        expect(answer[0], "n_prompt", prompt, self.name)
        expect(answer[0], "n_gen", decode, self.name)
        expect(answer[0], "n_threads", threads, self.name)
        self.build = answer[0].get("build_commit")
        return {case.name(): (number(answer[0], "avg_ts", self.name), None)}

    def measure_batched(self, model, case, threads):
        """The table is what all versions print, some of them to stderr."""
        context = (case.prompt + case.decode) * max(case.batches)
        text = run([self.folder / "llama-batched-bench", "-m", model, "-c", context, "-npp",
                    case.prompt, "-ntg", case.decode, "-npl", ",".join(map(str, case.batches)), "-t",
                    threads, "-tb", threads], self.timeout, with_stderr=True)
        return self.parse_batched(text, case)

    def parse_batched(self, text, case):
        rows = batched_rows(text, self.name)
        found = {}
        for batch, row in zip(case.batches, rows):
            for column, wanted in (("PP", case.prompt), ("TG", case.decode), ("B", batch)):
                expect(row, column, wanted, self.name)
            found[case.name(batch)] = (number(row, "S_TG t/s", self.name), None)
        if len(rows) != len(case.batches):
            raise MeasureError(f"{self.name}: expected {len(case.batches)} rows, found {len(rows)}")
        return found


def batched_rows(text, program):
    """The rows of the Markdown table whose head has the columns of a batched run, by column."""
    head, rows = None, []
    for line in text.splitlines():
        if not line.lstrip().startswith("|"):
            continue
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if head is None:
            head = cells if {"PP", "TG", "B"} <= set(cells) else None
        elif len(cells) == len(head) and not set(cells[0]) <= set("-: "):
            rows.append({name: cell_value(cell, program) for name, cell in zip(head, cells)})
    if head is None:
        raise MeasureError(f"{program}: expected a table with columns PP, TG, B, found {text[:60]!r}")
    return rows


def cell_value(cell, program):
    try:
        return int(cell) if cell.isdigit() else float(cell)
    except ValueError as error:
        raise MeasureError(f"{program}: expected a number in the table, found {cell!r}") from error


def machine():
    """What a reader must know of the machine."""
    text = pathlib.Path("/proc/cpuinfo").read_text("utf-8") if os.path.exists("/proc/cpuinfo") else ""
    models = [line.split(":", 1)[1].strip() for line in text.splitlines()
              if line.startswith(("model name", "CPU part"))]
    return {"processor": models[0] if models else None, "processors": os.cpu_count(),
            "load_average": os.getloadavg()[0]}
