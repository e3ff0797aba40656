"""Each verb that works on a model file alone, on real files, and the form of what it prints."""
import json

import pytest

from conftest import GOLDEN_MODELS, MODELS, golden, model_path, shared_file

SHAKESPEARE_BYTES = 100000 # what perplexity.json calls "first 100000 bytes of …"


@pytest.fixture(params=list(MODELS))
def model(request):
    return model_path(request.param)


@pytest.fixture(params=GOLDEN_MODELS)
def golden_name(request):
    return request.param


def ids_of(result):
    assert result.stdout.endswith("\n") and result.stdout.count("\n") == 1
    return [int(word) for word in result.stdout.split()]


def test_version_and_help(shoal):
    assert shoal.ok("--version").stdout.startswith("shoal ")
    text = shoal.ok("--help").stdout
    for verb in ("run", "serve", "worker", "plan", "inspect", "tokenize", "template", "eval", "bench"):
        assert verb in text
        assert verb in shoal.ok(verb, "--help").stdout


def test_tokenize_golden_prompts(shoal, golden_name):
    for case in golden(golden_name, "greedy.json")["cases"]:
        found = ids_of(shoal.ok("tokenize", model_path(golden_name), case["prompt"]))
        assert found == case["prompt_ids"], case["prompt"]


def test_tokenize_golden_texts(shoal, golden_name, tmp_path):
    """Whole texts from a file, without the BOS."""
    for result in golden(golden_name, "perplexity.json")["results"]:
        found = ids_of(shoal.ok("tokenize", model_path(golden_name), "-f",
                                golden_text(result["text"], tmp_path), "--no-bos"))
        assert len(found) == result["token_count"]
        assert found[:len(result["first_ids"])] == result["first_ids"]


def test_tokenize_and_back(shoal, model):
    text = "Once upon a time, there was a little girl."
    ids = ids_of(shoal.ok("tokenize", model, text))
    without = ids_of(shoal.ok("tokenize", model, text, "--no-bos"))
    assert ids[1:] == without
    back = shoal.ok("tokenize", model, "--decode", " ".join(map(str, without))).stdout
    assert back.strip() == text
    from_stdin = ids_of(shoal.ok("tokenize", model, stdin=text.encode()))
    assert from_stdin == ids


@pytest.mark.parametrize("name", ["llama-spm", "gpt-2", "phi-3", "starcoder"])
def test_tokenize_vocabulary_only(shoal, name):
    """A GGUF without weights: the first of its vectors, special tokens not parsed."""
    folder = ("tokenizers", "ggml-vocab")
    vocabulary = shared_file(*folder, f"ggml-vocab-{name}.gguf")
    texts = shared_file(*folder, f"ggml-vocab-{name}.gguf.inp").read_text("utf-8")
    lines = shared_file(*folder, f"ggml-vocab-{name}.gguf.out").read_text("utf-8").splitlines()
    for text, line in list(zip(texts.split("\n__ggml_vocab_test__\n"), lines))[:12]:
        found = shoal.ok("tokenize", vocabulary, "-f", "-", "--no-bos", "--no-parse-special",
                         stdin=text.encode())
        assert found.stdout.split() == line.split(), repr(text)


def test_tokenize_folder_with_tokenizer_alone(shoal):
    folder = shared_file("tokenizers", "minimind")
    ids = ids_of(shoal.ok("tokenize", folder, "Shoals of fish"))
    assert shoal.ok("tokenize", folder, "--decode", " ".join(map(str, ids))).stdout == "Shoals of fish\n"


def test_template_of_a_file(shoal, tmp_path):
    template = tmp_path / "chat.jinja"
    template.write_text("{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}\n"
                        "{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}")
    conversation = {"messages": [{"role": "user", "content": "Who are you?"}],
                    "add_generation_prompt": True, "bos_token": "<s>"}
    expected = "<s>[user] Who are you?\n[assistant]"
    data = json.dumps(conversation).encode()
    assert shoal.ok("template", "--template", template, stdin=data).stdout == expected
    (tmp_path / "conversation.json").write_bytes(data)
    found = shoal.ok("template", "--template", template, "-f", tmp_path / "conversation.json")
    assert found.stdout == expected


def test_template_of_a_model(shoal):
    folder = shared_file("tokenizers", "minimind")
    data = json.dumps({"messages": [{"role": "user", "content": "Hello there"}],
                       "add_generation_prompt": True}).encode()
    assert "Hello there" in shoal.ok("template", folder, stdin=data).stdout


@pytest.mark.parametrize("conversation, mentions", [
    (b"{", []), (b"[]", []), (b'{"messages": 3}', []), (b"", []),
    (b'{"messages": [{"role": "user", "content": "x"}]}', ["no talking"]),
], ids=repr)
def test_template_errors(shoal, tmp_path, conversation, mentions):
    template = tmp_path / "chat.jinja"
    template.write_text("{{ messages[0].content }}{{ raise_exception('no talking') }}")
    shoal.fails("template", "--template", template, stdin=conversation, mentions=mentions)


def golden_text(name, folder):
    """The file that perplexity.json means by "corpus/x" or "first 100000 bytes of corpus/x"."""
    path = shared_file(*name.split()[-1].split("/"))
    if not name.startswith("first"):
        return path
    cut = folder / path.name
    cut.write_bytes(path.read_bytes()[:SHAKESPEARE_BYTES])
    return cut


@pytest.mark.slow
def test_golden_perplexity(shoal, golden_name, tmp_path):
    """Within 0.1 % of the double-precision oracle, on both texts."""
    for expected in golden(golden_name, "perplexity.json")["results"]:
        found = shoal.json("eval", model_path(golden_name), "--ppl",
                           golden_text(expected["text"], tmp_path), "--kv", "f32", timeout=240)
        assert abs(found["ppl"] / expected["ppl"] - 1) < 1e-3, (expected["text"], found)


def test_perplexity_of_a_short_text(shoal, model, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("The boy went to the house and saw that his mother was not there. " * 20)
    found = shoal.json("eval", model, "--ppl", text, "--block", 64)
    assert 1 < found["ppl"] < 10000
    plain = shoal.ok("eval", model, "--ppl", text, "--block", 64).stdout
    assert "ppl" in plain and f"{found['ppl']:.3f}"[:4] in plain


def test_golden_next(shoal, golden_name):
    """The five most likely ids after each prompt, with their raw logits."""
    for case in golden(golden_name, "greedy.json")["cases"]:
        found = shoal.json("eval", model_path(golden_name), "--next", case["prompt"], "--top", 5,
                           "--kv", "f32")["next"]
        expected = case["top5_next"]
        assert [entry["id"] for entry in found] == [token for token, _ in expected], case["prompt"]
        for entry, (_, logit) in zip(found, expected):
            assert abs(entry["logit"] - logit) < 2e-3, case["prompt"]


def test_inspect(shoal, model):
    plain = shoal.ok("inspect", model).stdout
    answer = shoal.json("inspect", model)
    assert answer["runnable"] is True
    shapes = answer["model"]
    assert shapes["architecture"].lower().startswith(("llama", "mistral"))
    for key in ("layers", "hidden", "heads", "kv_heads", "vocab", "context"):
        assert shapes[key] > 0, key
        assert str(shapes[key]) in plain, key
    assert len(answer["layer_bytes"]) == shapes["layers"]
    assert 0 < sum(answer["layer_bytes"]) < answer["bytes"]
    tensors = shoal.ok("inspect", model, "--tensors").stdout
    for i in range(shapes["layers"]):
        assert f"blk.{i}.attn_q.weight" in tensors


def test_inspect_a_model_that_cannot_run(shoal):
    """A vocabulary alone is shown, with the reason why it does not run."""
    vocabulary = shared_file("tokenizers", "ggml-vocab", "ggml-vocab-gpt-2.gguf")
    answer = shoal.json("inspect", vocabulary)
    assert answer["runnable"] is False and answer["reason"]
    assert answer["reason"] in shoal.ok("inspect", vocabulary).stdout


def test_plan(shoal, model, shared_processes):
    nodes = shared_processes.workers(1)
    plan = shoal.json("plan", model, "--nodes", nodes[0])
    worker, lead = plan["nodes"]
    assert worker["node"] == nodes[0] and lead["node"] == "lead"
    assert worker["first"] == 0 and worker["last"] + 1 == lead["first"]
    assert lead["last"] == plan["layers"] - 1
    assert plan["layers"] == shoal.json("inspect", model)["model"]["layers"]
    assert nodes[0] in shoal.ok("plan", model, "--nodes", nodes[0]).stdout


def test_bench_model(shoal):
    """Batches of several sizes, each with probes around every repetition."""
    answer = shoal.json("bench", "model", model_path("demo"), "-p", 32, "-n", 16, "-t", 1, "-b",
                        "2,1", "-r", 1, timeout=200)
    assert [entry["batch"] for entry in answer["batches"]] == [2, 1]
    weights = shoal.json("inspect", model_path("demo"))["bytes"]
    for entry in answer["batches"]:
        for phase, unit in (("prefill", "gop_s"), ("decode", "gb_s")):
            found = entry[phase]
            assert found["tok_s"]["repetitions"] == len(found["runs"]) == 1
            assert 0 < found["tok_s"]["min"] <= found["tok_s"]["median"] <= found["tok_s"]["max"]
            for run in found["runs"]:
                assert min(run["rate"], run["before"], run["after"]) > 0
                agree = abs(run["before"] - run["after"]) <= 0.05 * max(run["before"], run["after"])
                assert run["counts"] is agree
            counted = sum(run["counts"] for run in found["runs"])
            assert (found["fraction"] or {"repetitions": 0})["repetitions"] == counted
        run = entry["decode"]["runs"][0]
        step_bytes = run["rate"] * 1e9 / run["tok_s"] * entry["batch"]
        assert 0.8 * weights < step_bytes < 1.5 * weights
    assert answer["read_gb_s"]["repetitions"] == answer["dot_gop_s"]["repetitions"] == 4


def test_bench_model_as_text(shoal):
    text = shoal.ok("bench", "model", model_path("demo"), "-p", 8, "-n", 4, "-t", 1, "-r", 1).stdout
    assert "tok/s" in text and "prefill" in text and "limit of reading" in text
    plain = shoal.ok("bench", "model", model_path("demo"), "-p", 8, "-n", 4, "-t", 1, "-r", 1,
                     "--no-probe").stdout
    assert "GB/s" in plain and "limit" not in plain


def test_bench_model_at_contexts(shoal):
    """What a step costs more after more positions, beside what reading them may cost."""
    answer = shoal.json("bench", "model", model_path("demo"), "--context", "8,200", "-n", 4, "-t", 1,
                        "-r", 2, timeout=200)
    assert "batches" not in answer
    short, long = answer["contexts"]
    assert (short["context"], long["context"]) == (8, 200)
    # 4 tokens warm up; the 8 that count see 1 to 8 positions more.
    assert (short["positions"], long["positions"]) == (16.5, 208.5)
    assert short["allowed_s"] == 0
    for entry in short, long:
        for key in "step_s", "base_s", "extra_s":
            assert entry[key]["repetitions"] == 2
        # Of two, the median is the mean.
        assert entry["extra_s"]["median"] == pytest.approx(entry["step_s"]["median"] -
                                                           entry["base_s"]["median"])
    assert short["of_allowed"] is None
    p = shoal.json("inspect", model_path("demo"))["model"]
    kv_bytes = 192 * p["layers"] * 2 * p["kv_heads"] * p["head_size"] * 2
    assert long["allowed_s"] == pytest.approx(kv_bytes / (0.85e9 * long["read_gb_s"]))
    if long["of_allowed"] is not None:  # the probes may differ too much
        assert long["of_allowed"]["repetitions"] in (1, 2)
    for entry in short, long:
        assert 0 < entry["step_s"]["min"]
    text = shoal.ok("bench", "model", model_path("demo"), "--context", "8,16", "-n", 2, "-t", 1, "-r",
                    1, "--no-probe").stdout
    rows = [line.split() for line in text.splitlines()[2:]]
    assert [row[0] for row in rows] == ["8", "16"] and "allowed" not in text


def test_bench_model_guesses(shoal):
    flags = ["-p", 16, "-n", 40, "-t", 1, "-r", 2, "-b", "1,3", "--no-probe"]
    answer = shoal.json("bench", "model", model_path("demo"), *flags, "--draft-model",
                        model_path("demo"))
    for entry in answer["batches"]:
        found = entry["guessing"]
        for speed in found["tok_s"], found["plain_tok_s"]:
            assert speed["repetitions"] == 2 and speed["min"] > 0
        # Greedy, and its own: always right. None, once it was seen to take as long as a step.
        assert found["model_tokens"] == found["model_accepted_tokens"]
        assert found["lookup_tokens"] >= found["lookup_accepted_tokens"]
    text = shoal.ok("bench", "model", model_path("demo"), *flags, "--draft-model",
                    model_path("demo")).stdout
    assert "guessing, 3 seqs" in text and "by the draft model" in text


def test_bench_model_of_a_cluster_probes_nothing(shoal, shared_processes):
    nodes = shared_processes.workers(1)
    answer = shoal.json("bench", "model", model_path("demo"), "-p", 8, "-n", 4, "-t", 1, "-r", 1,
                        "--nodes", nodes[0])
    decode = answer["batches"][0]["decode"]
    assert "fraction" not in decode and "gb_s" not in decode and "before" not in decode["runs"][0]


@pytest.mark.parametrize("arguments, says", [
    ([], "bench model"), (["speed"], "bench speed"), (["model"], "MODEL"),
    (["model", "x", "-b", "1,,2"], "-b"), (["model", "x", "-p", "0", "-n", "0"], "nothing"),
    (["model", "x", "--context", "8,0"], "--context"),
    (["model", "x", "--context", "8", "-b", "2"], "leave out -b"),
    (["model", "x", "--context", "8", "--draft-model", "x"], "leave out --draft-model"),
    (["model", "x", "--context", "8", "-n", "0"], "-n 0"),
    (["model", "x", "--draft-model", "x", "-n", "1"], "--draft-model"),
])
def test_bench_usage(shoal, arguments, says):
    shoal.fails("bench", *arguments, status=64, mentions=[says])


def test_bench_kernels(shoal):
    """Every operation gives the reference's bits (on every instruction set: kernel_bench_test.c)."""
    answer = shoal.json("bench", "kernels", "--shape", "192x256", "--rows", "5", "--positions", "40",
                        "--type", "Q8_0,F16", "--ms", 1, "-t", 2, timeout=200)
    assert answer["threads"] == 2 and len(answer["limits"]) == 1
    results = answer["results"]
    # 2 types, 3 types of keys and values, 4 operations on rows
    assert [r["op"] for r in results] == ["matmul"] * 2 + ["ffn"] * 2 + ["attention"] * 3 + [
        "rms_norm", "silu_mul", "add", "rope"]
    assert {r["isa"] for r in results} == {answer["limits"][0]["isa"]}
    for r in results:
        assert r["equal"] is True and r["compared"] >= 64, r
        assert 0 <= r["error"] < 0.05, r
        assert min(r["us"], r["gb_s"], r["gop_s"], r["before"], r["after"], r["fraction"]) > 0, r
        assert r["limit"] in ("read", "dot", "fma")
    exact = [r for r in results if r["op"] == "matmul" and r["type"] == "F16"]
    assert max(r["error"] for r in exact) < 1e-4


def test_bench_kernels_as_text(shoal):
    lines = shoal.ok("bench", "kernels", "--op", "add,rms_norm", "--rows", "2", "--ms", 1, "-t",
                     1).stdout.splitlines()
    assert len(lines) == 4 and "GB/s" in lines[0] and all(" same " in line for line in lines[2:])


@pytest.mark.parametrize("arguments, status, says", [
    (["--op", "sum"], 64, "sum"), (["--type", "Q9"], 64, "Q9"), (["--type", "Q2_K"], 64, "Q2_K"),
    (["--shape", "3b"], 64, "3b"), (["--shape", "16x0"], 64, "16x0"), (["--rows", "0"], 64, "--rows"),
    (["--shape", "16x16x2"], 64, "16x16x2"), (["--isa", "mmx"], 1, "mmx"), (["model.gguf"], 64, ""),
    (["--op", "matmul", "--shape", "16x40", "--type", "Q8_0"], 1, "40 columns"),
])
def test_bench_kernels_errors(shoal, arguments, status, says):
    shoal.fails("bench", "kernels", "--json", *arguments, status=status, mentions=[says])


def test_worker_prints_its_address(processes):
    worker = processes.worker()
    host, _, port = worker.address().rpartition(":")
    assert host == "127.0.0.1" and int(port) > 0
    assert worker.stop() == 0
