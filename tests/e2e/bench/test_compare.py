"""bench/compare: its arithmetic, and what it reads of the programs, with fakes in their place.

The fakes print what the real programs printed, recorded once and cut to the fields that matter
and some that do not.
"""
import json
import pathlib
import stat
import subprocess
import sys

import pytest

from conftest import ROOT, model_path

COMPARE = ROOT / "bench" / "compare"
sys.path.insert(0, str(COMPARE))
import compare
import programs
import summary

LLAMA_BENCH = """[
  {
    "build_commit": "3f545becc",
    "model_size": 763092992,
    "n_threads": 2,
    "n_prompt": 512,
    "n_gen": 0,
    "avg_ns": 2197370000,
    "avg_ts": 233.005320,
    "samples_ts": [ 233.005 ]
  }
]
"""

BATCHED = """
main: n_kv_max = 4096, n_batch = 2048, n_ubatch = 512, n_threads = 1, n_threads_batch = 1

|    PP |     TG |    B |   N_KV |   T_PP s | S_PP t/s |   T_TG s | S_TG t/s |      T s |    S t/s |
|-------|--------|------|--------|----------|----------|----------|----------|----------|----------|
|    64 |     32 |    1 |     96 |    0.004 |  3673.94 |    0.004 |    45.25 |    0.008 |  3027.63 |
|    64 |     32 |    8 |    768 |    0.006 |  5446.81 |    0.007 |    91.50 |    0.013 |  3711.44 |

llama_print_timings:        load time =      32.74 ms
"""


def shoal_answer(batches=(1,), **phases):
    phases = phases or {"decode": {"tok_s": 50.0, "rate": 38.0, "before": 40.0, "after": 41.0}}
    entry = {name: {"runs": [run]} for name, run in phases.items()}
    return {"threads": 2, "kernels": "avx512", "batches": [{"batch": b, **entry} for b in batches]}


PREFILL = programs.Case("prefill", 512, 0)
DECODE = programs.Case("decode", 0, 128)
BATCHED_CASE = programs.Case("batched", 64, 32, (1, 8))


# --- arithmetic ---

def test_spread():
    found = summary.spread([10.0, 12.0, 9.0, 11.0, 30.0])
    assert (found["median"], found["min"], found["max"]) == (11.0, 9.0, 30.0)
    assert found["spread"] == pytest.approx(21 / 11)
    assert summary.spread([1.0, 2.0])["median"] == 1.5


@pytest.mark.parametrize("before, after, agree", [
    (100, 100, True), (100, 95, True), (95, 100, True), (100, 94.9, False), (94.9, 100, False)])
def test_probes_agree(before, after, agree):
    assert summary.probes_agree(before, after) is agree


def test_fraction_leaves_out_what_drifted():
    found = summary.fraction_of([
        {"rate": 30.0, "before": 39.0, "after": 41.0}, {"rate": 39.0, "before": 30.0, "after": 60.0},
        {"rate": 36.0, "before": 40.0, "after": 40.0}, {"rate": 38.0, "before": 40.0, "after": 40.0}])
    assert (found["kept"], found["of"]) == (3, 4)
    assert found["median"] == pytest.approx(0.9)
    assert (found["min"], found["max"]) == (pytest.approx(0.75), pytest.approx(0.95))
    assert [run["kept"] for run in found["runs"]] == [True, False, True, True]


def test_fraction_without_any_agreeing_pair_is_none():
    found = summary.fraction_of([{"rate": 39.0, "before": 30.0, "after": 60.0}])
    assert (found["median"], found["kept"]) == (None, 0)
    assert "no agreeing probes" in summary.fraction_cell({"fraction": found})


def test_ratios_are_of_the_same_round():
    """A machine at half its speed in one round changes no ratio."""
    found = summary.ratios([40.0, 20.0, 42.0], [20.0, 10.0, 20.0])
    assert found["runs"] == [2.0, 2.0, 2.1] and found["median"] == 2.0


def test_table():
    rows = {("decode 128", 2): {
        "shoal": {"tok_s": [50.0, 52.0], "probed": [{"rate": 36.0, "before": 40, "after": 40}] * 2},
        "other": {"tok_s": [40.0, 40.0], "probed": []}}}
    entries = summary.summarise(rows, "shoal")
    lines = summary.table(entries, "shoal").splitlines()
    assert lines[0] == "| case | threads | shoal, tok/s | other, tok/s | shoal / other | shoal, of the limit |"
    assert lines[2] == ("| decode 128 | 2 | 51.0 (50.0 … 52.0) | 40.0 (40.0 … 40.0) "
                        "| 1.27 (1.25 … 1.30) | 90 % (2 of 2 runs) |")


# --- parsing ---

def test_llama_bench():
    llama = programs.Llama("llama.cpp", "/x", 1)
    assert llama.parse_bench(LLAMA_BENCH, PREFILL, 2) == {"prefill 512": (233.005320, None)}
    assert llama.build == "3f545becc"


def changed(text, **fields):
    answer = json.loads(text)
    for name, value in fields.items():
        answer[0].pop(name, None) if value is None else answer[0].update({name: value})
    return json.dumps(answer)


@pytest.mark.parametrize("text, says", [
    ("", "expected JSON"), ("error: no model", "expected JSON"), ("[]", "expected one result"),
    ("{}", "expected one result"), ("[3]", '"n_prompt"'),
    (changed(LLAMA_BENCH, avg_ts=None), '"avg_ts"'), (changed(LLAMA_BENCH, avg_ts="fast"), "'fast'"),
    (changed(LLAMA_BENCH, avg_ts=0), "positive"), (changed(LLAMA_BENCH, avg_ts=True), "True"),
    (changed(LLAMA_BENCH, n_threads=1), '"n_threads" 2, found 1'),
    (changed(LLAMA_BENCH, n_gen=128), '"n_gen" 0, found 128'),
])
def test_llama_bench_that_is_not_as_expected(text, says):
    with pytest.raises(programs.MeasureError, match="llama.cpp: ") as error:
        programs.Llama("llama.cpp", "/x", 1).parse_bench(text, PREFILL, 2)
    assert says in str(error.value)


def test_batched_bench():
    found = programs.Llama("ik", "/x", 1).parse_batched(BATCHED, BATCHED_CASE)
    assert found == {"decode 32 after 64, 1 sequences": (45.25, None),
                     "decode 32 after 64, 8 sequences": (91.5, None)}


@pytest.mark.parametrize("text, says", [
    ("", "expected a table"), (BATCHED.replace("S_TG t/s", "S_TG"), '"S_TG t/s"'),
    (BATCHED.replace("91.50", "fast"), "'fast'"), (BATCHED.replace("91.50", "0.0"), "positive"),
    (BATCHED.replace("    8 |", "    4 |"), '"B" 8, found 4'),
    ("\n".join(BATCHED.splitlines()[:6]), "expected 2 rows, found 1"),
])
def test_batched_bench_that_is_not_as_expected(text, says):
    with pytest.raises(programs.MeasureError) as error:
        programs.Llama("ik", "/x", 1).parse_batched(text, BATCHED_CASE)
    assert says in str(error.value)


def test_shoal_answer():
    found = programs.Shoal("/x", 1).parse(json.dumps(shoal_answer()), DECODE, 2)
    assert found == {"decode 128": (50.0, {"rate": 38.0, "before": 40.0, "after": 41.0})}


@pytest.mark.parametrize("change, says", [
    (lambda a: a.pop("batches"), '"batches"'), (lambda a: a["batches"].clear(), "found 0"),
    (lambda a: a["batches"][0].pop("decode"), '"decode"'),
    (lambda a: a["batches"][0].update(batch=2), '"batch" 1, found 2'),
    (lambda a: a["batches"][0]["decode"]["runs"].clear(), "one run"),
    (lambda a: a["batches"][0]["decode"]["runs"][0].pop("before"), '"before"'),
    (lambda a: a.update(threads=1), '"threads" 2, found 1'),
])
def test_shoal_answer_that_is_not_as_expected(change, says):
    answer = shoal_answer()
    change(answer)
    with pytest.raises(programs.MeasureError) as error:
        programs.Shoal("/x", 1).parse(json.dumps(answer), DECODE, 2)
    assert says in str(error.value)


# --- the whole program, with fakes ---

class Fakes:
    """Executables that print recorded answers and note that they ran."""

    def __init__(self, folder):
        self.folder, self.log = folder, folder / "log"
        self.model = folder / "model.gguf"
        self.model.write_bytes(b"GGUF")

    def program(self, path, body):
        path = self.folder / path
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!{sys.executable}\nimport json, sys\na = sys.argv[1:]\n"
                        f"value = lambda name: a[a.index(name) + 1]\n"
                        f"open({str(self.log)!r}, 'a').write({str(path.relative_to(self.folder))!r}"
                        f" + '\\n')\n{body}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def shoal(self):
        self.program("shoal", """
b = [int(x) for x in value('-b').split(',')] if '-b' in a else [1]
run = {'tok_s': 50.0, 'rate': 36.0, 'before': 40.0, 'after': 40.0}
phase = {'prefill': {'runs': [run]}, 'decode': {'runs': [run]}}
print(json.dumps({'threads': int(value('-t')) if '-t' in a else 2, 'kernels': 'avx512',
                  'batches': [{'batch': x, **phase} for x in b]}))""")

    def llama(self, name):
        self.program(f"{name}/llama-bench", """
print(json.dumps([{'build_commit': 'abc', 'n_threads': int(value('-t')), 'avg_ts': 25.0,
                   'n_prompt': int(value('-p')), 'n_gen': int(value('-n'))}]))""")
        self.program(f"{name}/llama-batched-bench", """
print('| PP | TG | B | S_TG t/s |\\n|----|----|---|----|', file=sys.stderr)
for b in value('-npl').split(','):
    print('|', value('-npp'), '|', value('-ntg'), '|', b, '| 20.0 |', file=sys.stderr)""")

    def compare(self, *arguments):
        return subprocess.run(
            [sys.executable, COMPARE / "compare.py", "--model", self.model, "--shoal",
             self.folder / "shoal", "--json", self.folder / "out.json", *map(str, arguments)],
            capture_output=True, text=True, timeout=200, check=False)


@pytest.fixture
def fakes(tmp_path):
    return Fakes(tmp_path)


def test_alternation_and_report(fakes):
    fakes.shoal()
    fakes.llama("one")
    fakes.llama("two")
    done = fakes.compare("--peer", f"one={fakes.folder / 'one'}", "--peer",
                         f"two={fakes.folder / 'two'}", "--threads", "1,2", "--batches", "1,8")
    assert done.returncode == 0, done.stderr
    ran = fakes.log.read_text().split()
    assert ran[:9] == ["shoal", "one/llama-bench", "two/llama-bench"] * 2 + [
        "shoal", "one/llama-batched-bench", "two/llama-batched-bench"]
    assert ran[:-1] == ran[:9] * 5 * 2
    report = json.loads((fakes.folder / "out.json").read_text())
    cases = {(r["case"], r["threads"]): r for r in report["results"]}
    assert len(cases) == 8 and report["rounds"] == 5
    found = cases["decode 32 after 64, 8 sequences", 2]
    assert found["ratio"]["two"]["runs"] == [2.5] * 5
    assert found["fraction"]["median"] == pytest.approx(0.9)
    assert cases["prefill 512", 1]["ratio"]["one"]["median"] == 2.0
    assert report["programs"]["one"]["build"] == "abc"
    assert report["programs"]["shoal"]["kernels"] == "avx512"
    assert "| 90 % (5 of 5 runs) |" in done.stdout and "impression" not in done.stdout


def test_few_rounds_are_no_result(fakes):
    fakes.shoal()
    done = fakes.compare("--rounds", 2, "--cases", "decode")
    assert done.returncode == 0, done.stderr
    assert "impression, not a result" in done.stdout


def test_peer_that_fails_is_named(fakes):
    fakes.shoal()
    fakes.program("bad/llama-bench", "sys.exit('no such flag')")
    done = fakes.compare("--peer", f"bad={fakes.folder / 'bad'}", "--cases", "decode")
    assert done.returncode == 1 and "no such flag" in done.stderr and "llama-bench" in done.stderr
    assert "Traceback" not in done.stderr and not (fakes.folder / "out.json").exists()


@pytest.mark.parametrize("arguments, status, says", [
    (["--peer", "bad=/nowhere"], 1, "No such file"), (["--peer", "bad"], 2, "expected NAME="),
    (["--cases", "decode,speed"], 2, "--cases"), (["--threads", "1,x"], 2, "--threads"),
    (["--batches", "0"], 2, "--batches"), (["--rounds", "1,2"], 2, "--rounds"),
    (["--peer-args", "x=-fa 1"], 2, "no --peer x"), (["--model", "/nowhere.gguf"], 1, "no such file"),
])
def test_bad_arguments(fakes, arguments, status, says):
    fakes.shoal()
    done = fakes.compare("--cases", "decode", *arguments)
    assert done.returncode == status and says in done.stderr and "Traceback" not in done.stderr


def test_with_the_real_binary(shoal, tmp_path):
    """What this version of the program prints is what the comparison reads."""
    done = subprocess.run(
        [sys.executable, COMPARE / "compare.py", "--model", model_path("demo"), "--shoal",
         shoal.binary, "--threads", "1", "--rounds", "1", "--prompt", "32", "--decode", "8",
         "--batches", "1,3", "--batched-prompt", "8", "--batched-decode", "4", "--json",
         tmp_path / "out.json"], capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(pathlib.Path(tmp_path / "out.json").read_text())
    assert [r["case"] for r in report["results"]] == [
        "prefill 32", "decode 8", "decode 4 after 8, 1 sequences", "decode 4 after 8, 3 sequences"]
    for result in report["results"]:
        run = result["fraction"]["runs"][0]
        assert 0 < run["fraction"] and run["before"] > 0 and run["after"] > 0
