"""A tiny model with a sliding window, and what `transformers` computes with it.

    make.py --out tests/golden/window

Architecture Mistral, hidden size 64, 3 layers, window 12, random weights in BF16 from a fixed seed, large
enough that attention decides what comes next: without the window other ids follow, which is checked here.
OUT gets config.json, model.safetensors, tokenizer.json (a token for every byte), text.txt and golden.json:
greedy ids over many windows, the five best logits after every prompt, and the perplexity of the text. The
arithmetic is float32 on the CPU, eager attention, no cache. Needs torch, transformers and tokenizers in the
versions of tools/demo_model/requirements.txt or newer; those that were used stand in golden.json.
"""

import argparse
import hashlib
import json
import math
import pathlib

import tokenizers
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import MistralConfig, MistralForCausalLM

WINDOW = 12
BOS, EOS = 256, 257
NEW_IDS = 60
BLOCK = 80
LEAST_GAP = 0.001  # between the two best logits of every greedy step
PROMPTS = ["", "a", "The quick brown fox jumps over the lazy dog, and the dog",
           "Sliding windows forget what lies far behind them; " * 3, "0123456789" * 4 + "01234"]
TEXT = ("It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of "
        "foolishness, it was the epoch of belief, it was the epoch of incredulity, it was the season of "
        "Light, it was the season of Darkness, it was the spring of hope, it was the winter of despair.\n")


def byte_tokenizer():
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    # ByteLevel's letter of a byte: the printable ones stand for themselves, the rest follow from 256 on.
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in printable]
    letter = {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(rest)}
    assert sorted(letter.values()) == letters
    tokenizer = Tokenizer(models.BPE(vocab={letter[b]: b for b in range(256)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", BOS)])
    return tokenizer


def make_model(seed):
    config = MistralConfig(
        vocab_size=258, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, max_position_embeddings=512, sliding_window=WINDOW,
        rms_norm_eps=1e-5, bos_token_id=BOS, eos_token_id=EOS, tie_word_embeddings=False,
        dtype="bfloat16", attn_implementation="eager")
    model = MistralForCausalLM(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 1:
                weight.copy_(1 + 0.2 * torch.randn(weight.shape, generator=generator))
            else:
                scale = 2.5 if "q_proj" in name or "k_proj" in name else 1.0
                weight.copy_(scale / math.sqrt(weight.shape[1]) *
                             torch.randn(weight.shape, generator=generator))
            weight.copy_(weight.to(torch.bfloat16))  # the values that the file will hold
        model.lm_head.weight[BOS:] = 0  # never the best: any prompt gives text that goes on
    return model.float()


def logits_of(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids]), use_cache=False).logits[0].double()


def greedy(model, ids, n):
    """n ids and the least gap; None where one is too close, or the end comes."""
    ids, out, gaps = list(ids), [], []
    for _ in range(n):
        best = torch.topk(logits_of(model, ids)[-1], 2)
        out.append(int(best.indices[0]))
        gaps.append(float(best.values[0] - best.values[1]))
        ids.append(out[-1])
        if gaps[-1] < LEAST_GAP or out[-1] == EOS:
            return None, gaps[-1]
    return out, min(gaps)


def cases_of(model, tokenizer):
    cases = []
    for prompt in PROMPTS:
        ids = tokenizer.encode(prompt).ids
        new, gap = greedy(model, ids, NEW_IDS)
        if new is None:
            return None
        best = torch.topk(logits_of(model, ids)[-1], 5)
        cases.append({"prompt": prompt, "prompt_ids": ids, "greedy_ids": new, "least_gap": round(gap, 4),
                      "top5_next": [[int(i), round(float(v), 5)]
                                    for i, v in zip(best.indices, best.values)]})
    return cases


def perplexity(model, tokenizer):
    ids = tokenizer.encode(TEXT, add_special_tokens=False).ids
    nll, n = 0.0, 0
    for at in range(0, len(ids) - BLOCK + 2, BLOCK - 1):
        block = [BOS, *ids[at:at + BLOCK - 1]]
        if len(block) < BLOCK:
            break
        scores = torch.log_softmax(logits_of(model, block), dim=-1)
        nll -= sum(float(scores[i, block[i + 1]]) for i in range(BLOCK - 1))
        n += BLOCK - 1
    return {"text": "text.txt", "block": BLOCK, "scored_tokens": n, "ppl": math.exp(nll / n)}


def find_model(tokenizer):
    """The first seed whose greedy paths are clear, and others without the window."""
    for seed in range(1, 1000):
        model = make_model(seed)
        cases = cases_of(model, tokenizer)
        if cases is None:
            continue
        model.config.sliding_window = None
        others = [greedy(model, case["prompt_ids"], NEW_IDS)[0] for case in cases]
        model.config.sliding_window = WINDOW
        if all(other != case["greedy_ids"] for other, case in zip(others, cases)):
            return seed, model, cases
    raise SystemExit("no seed will do")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=pathlib.Path, required=True)
    out = parser.parse_args().out
    tokenizer = byte_tokenizer()
    seed, model, cases = find_model(tokenizer)
    golden = {"made_by": "tools/window_model/make.py", "seed": seed, "window": WINDOW,
              "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
              "cases": cases, "perplexity": perplexity(model, tokenizer)}
    model.to(torch.bfloat16).save_pretrained(out)
    (out / "generation_config.json").unlink(missing_ok=True)
    tokenizer.save(str(out / "tokenizer.json"))
    (out / "text.txt").write_text(TEXT)
    golden["model_sha256"] = hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()
    (out / "golden.json").write_text(json.dumps(golden, indent=1) + "\n")
    print(f"seed {seed}, least gaps {[c['least_gap'] for c in cases]}, {golden['perplexity']}")


if __name__ == "__main__":
    main()
