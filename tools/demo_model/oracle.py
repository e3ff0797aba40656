"""Expected outputs of the demo model, computed by `transformers` from the shipped GGUF.

    oracle.py MODEL.gguf --heldout DATA/heldout.json --tokenizer DATA/tokenizer.json --out FOLDER

The weights are the GGUF's, dequantised, and the arithmetic is float32 on the CPU; activations are
not quantised. FOLDER gets heldout.txt, greedy.json and perplexity.json. Every greedy case says how
far apart the two best logits were at every step (`gaps`): an engine that rounds activations to int8
may choose otherwise where a gap is small. What such rounding does is measured too, by rounding the
inputs of all matrix products to int8 in groups of 32 (`int8_activations`).
"""

import argparse
import hashlib
import json
import math
import pathlib
import platform

import gguf
import tokenizers
import torch
import transformers
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

NEW_IDS = 80
GROUP = 32
BLOCKS = (512, 256)
HELD_OUT_PROSE, HELD_OUT_VERSE = 46000, 8000
LONG_PROMPT = 1250

# One group per thing to cover; of each group the prompt is taken whose greedy path is most robust.
CANDIDATES = {
    "bos alone": [""],
    "narration": ["It was a cold morning, and the old man", "The prince looked at her and"],
    "narration, the sea": ["The captain went down to the boat, and", "The ship was"],
    "dialogue": ["\"My dear Watson,\" said Holmes, \"", "\"I do not understand you,\" said the"],
    "verse": ["ROMEO:\n", "KING RICHARD III:\nWhat"],
    "one word": ["The", "I"],
    "unicode": [
        "\u201cNa\u00efve caf\u00e9,\u201d wrote Ana\u00efs; \u6771\u4eac \U0001f642 \u2014 and then the",
        "The na\u00efve fianc\u00e9e said \u201c\u041f\u0440\u0438\u0432\u0435\u0442\u201d and"],
    "spaces and digits": [
        "  In 1812,\tat 10 o'clock on the 24th,  he", "Chapter 12.\n\n\n   On the 7th of June 1805 the"],
}


def tokenizer_of(reader):
    """The tokenizer that the GGUF itself describes."""
    def strings(key):
        field = reader.get_field(key)
        return [bytes(field.parts[i]).decode() for i in field.data]

    tokens = strings("tokenizer.ggml.tokens")
    merges = [tuple(merge.split(" ")) for merge in strings("tokenizer.ggml.merges")]
    assert strings("tokenizer.ggml.model") == ["gpt2"]
    assert strings("tokenizer.ggml.pre") == ["gpt-2"]
    ids = {token: i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(tokenizers.models.BPE(vocab=ids, merges=merges))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    types = reader.get_field("tokenizer.ggml.token_type")
    control = [tokens[n] for n, i in enumerate(types.data)
               if types.parts[i][0] == gguf.TokenType.CONTROL]
    tokenizer.add_special_tokens(control)
    return tokenizer


def same_tokenizer(ours, theirs, texts):
    assert ours.get_vocab() == theirs.get_vocab(), "vocabulary differs from tokenizer.json"
    for text in texts:
        a, b = (t.encode(text, add_special_tokens=False).ids for t in (ours, theirs))
        assert a == b, f"ids differ from tokenizer.json: {text[:60]!r}"


def held_out_text(path):
    """War and Peace and Shakespeare, cut at the end of a paragraph."""
    pieces = json.loads(path.read_text())

    def head(text, limit):
        return text if len(text) <= limit else text[:text.rindex("\n\n", 0, limit)]

    prose = head(pieces["war-and-peace.txt"], HELD_OUT_PROSE)
    verse = head(pieces["tinyshakespeare.txt"], HELD_OUT_VERSE)
    return prose + "\n\n" + verse + "\n"


def round_to_int8(_module, inputs):
    values = inputs[0]
    groups = values.reshape(*values.shape[:-1], -1, GROUP)
    scale = groups.abs().amax(-1, keepdim=True) / 127
    rounded = torch.round(groups / scale.clamp(min=1e-30)) * scale
    return (rounded.reshape(values.shape),)


class Int8Activations:
    """Within it, inputs of matrix products are rounded as an engine with int8 kernels does."""

    def __init__(self, model):
        self.model, self.hooks = model, []

    def __enter__(self):
        self.hooks = [module.register_forward_pre_hook(round_to_int8)
                      for module in self.model.modules() if isinstance(module, torch.nn.Linear)]

    def __exit__(self, *_):
        for hook in self.hooks:
            hook.remove()


@torch.no_grad()
def greedy(model, prompt_ids, eos):
    """Ids by argmax, the five best after the prompt, the gap between the two best at every step."""
    ids, chosen, gaps, top, past = list(prompt_ids), [], [], None, None
    while len(chosen) < NEW_IDS:
        result = model(input_ids=torch.tensor([ids]), past_key_values=past, use_cache=True)
        past = result.past_key_values
        best = torch.topk(result.logits[0, -1].double(), 5)
        top = top or [[int(i), round(float(v), 5)] for i, v in zip(best.indices, best.values)]
        gaps.append(round(float(best.values[0] - best.values[1]), 5))
        chosen.append(int(best.indices[0]))
        ids = chosen[-1:]
        if chosen[-1] == eos:
            break
    return chosen, gaps, top


def first_difference(a, b):
    """Number of leading ids that agree, or None if all do."""
    if a == b:
        return None
    return next((n for n, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))


def case_of(models, tokenizer, kind, prompt, special):
    bos, eos = special
    prompt_ids = [bos, *tokenizer.encode(prompt, add_special_tokens=False).ids]
    chosen, gaps, top = greedy(models["float32"], prompt_ids, eos)
    return {"kind": kind, "prompt": prompt, "prompt_ids": prompt_ids, "top5_next": top,
            "greedy_ids": chosen, "greedy_text": tokenizer.decode(chosen),
            "smallest_top1_top2_gap": min(gaps), "gaps": gaps}


def finish(case, models, eos):
    """Repeats the path in double precision and with rounded activations."""
    double, _, _ = greedy(models["float64"], case["prompt_ids"], eos)
    case["fp32_equals_fp64"] = double == case["greedy_ids"]
    with Int8Activations(models["float32"]):
        rounded, _, _ = greedy(models["float32"], case["prompt_ids"], eos)
    case["int8_activations_first_difference"] = first_difference(case["greedy_ids"], rounded)
    return case


@torch.no_grad()
def negative_log_likelihood(model, ids, bos, block):
    count = len(ids) // (block - 1)
    total = 0.0
    for n in range(count):
        target = torch.tensor(ids[n * (block - 1):(n + 1) * (block - 1)])
        source = torch.cat([torch.tensor([bos]), target[:-1]])
        logits = model(input_ids=source[None], use_cache=False).logits[0].double()
        total += float(torch.nn.functional.cross_entropy(logits, target, reduction="sum"))
    return count, total / (count * (block - 1))


def perplexities(model, tokenizer, text, bos):
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    for block in BLOCKS:
        count, mean = negative_log_likelihood(model, ids, bos, block)
        with Int8Activations(model):
            _, rounded = negative_log_likelihood(model, ids, bos, block)
        yield {"text": "heldout.txt", "block": block, "token_count": len(ids),
               "first_ids": ids[:24], "blocks": count, "scored_tokens": count * (block - 1),
               "mean_nll": round(mean, 6), "ppl": round(math.exp(mean), 5),
               "int8_activations": {"mean_nll": round(rounded, 6),
                                    "ppl": round(math.exp(rounded), 5)}}


def provenance(path):
    return {"model": path.name, "model_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "made_by": "tools/demo_model/oracle.py: transformers, float32 on the CPU, weights"
                       " dequantised from the GGUF, eager attention",
            "versions": {"python": platform.python_version(), "torch": torch.__version__,
                         "transformers": transformers.__version__,
                         "tokenizers": tokenizers.__version__}}


def load(path, kind):
    model = AutoModelForCausalLM.from_pretrained(
        str(path.parent), gguf_file=path.name, dtype=torch.float32, attn_implementation="eager")
    return model.to(kind).eval()


def write(path, content):
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--heldout", type=pathlib.Path, required=True)
    parser.add_argument("--tokenizer", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    reader = gguf.GGUFReader(arguments.model)
    special = tuple(int(reader.get_field(f"tokenizer.ggml.{name}_token_id").contents())
                    for name in ("bos", "eos"))
    tokenizer = tokenizer_of(reader)
    text = held_out_text(arguments.heldout)
    prompts = {**CANDIDATES, "long": [text[:text.rindex(" ", 0, LONG_PROMPT)]]}
    same_tokenizer(tokenizer, Tokenizer.from_file(str(arguments.tokenizer)),
                   [text, *(prompt for group in prompts.values() for prompt in group)])

    models = {"float32": load(arguments.model, torch.float32),
              "float64": load(arguments.model, torch.float64)}
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "heldout.txt").write_text(text)
    cases = []
    for kind, group in prompts.items():
        tried = [case_of(models, tokenizer, kind, prompt, special) for prompt in group]
        best = max(tried, key=lambda case: case["smallest_top1_top2_gap"])
        cases.append(finish(best, models, special[1]))
    write(arguments.out / "greedy.json", {
        **provenance(arguments.model),
        "how": f"greedy = argmax each step; BOS in front; stops after EOS or {NEW_IDS} new ids;"
               " top5_next = [id, raw logit] right after the prompt; gaps = best minus second-best"
               " logit at every step; int8_activations_first_difference = number of ids that still"
               " agree when inputs of matrix products are rounded to int8 in groups of 32"
               " (null: all)",
        "cases": cases})
    write(arguments.out / "perplexity.json", {
        **provenance(arguments.model),
        "how": "whole text tokenized once (no BOS/EOS), cut into consecutive blocks of block - 1"
               " ids, last short block dropped; every block is run from an empty cache with BOS in"
               " front and all its ids are scored; mean negative log likelihood in nats",
        "results": list(perplexities(models["float32"], tokenizer, text, special[0]))})


if __name__ == "__main__":
    main()
