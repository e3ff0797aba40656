"""Prints text sampled from the demo model, and its perplexity on the held-out text.

    sample.py MODEL.gguf | HF_FOLDER [--text heldout.txt] [-n 200] [--seed 1] [PROMPT...]

With a GGUF and the folder it was made from, the two perplexities show what quantisation costs.
"""

import argparse
import math
import pathlib

import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

import gguf
import oracle

PROMPTS = ["It was a cold morning, and the old man", "\"Where have you been?\" said the captain."]


def load(path):
    if path.is_dir():
        model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
        return model.eval(), Tokenizer.from_file(str(path / "tokenizer.json"))
    return oracle.load(path, torch.float32), oracle.tokenizer_of(gguf.GGUFReader(path))


@torch.no_grad()
def sample(model, ids, count, temperature=0.8, best=40):
    past, new = None, ids
    for _ in range(count):
        result = model(input_ids=torch.tensor([new]), past_key_values=past, use_cache=True)
        past, logits = result.past_key_values, result.logits[0, -1] / temperature
        values, indices = torch.topk(logits, best)
        ids.append(int(indices[torch.multinomial(values.softmax(-1), 1)]))
        new = ids[-1:]
        if ids[-1] == 1 or len(ids) == 512:
            break
    return ids


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--text", type=pathlib.Path)
    parser.add_argument("-n", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("prompts", nargs="*", default=PROMPTS)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(1)
    model, tokenizer = load(arguments.model)
    if arguments.text:
        ids = tokenizer.encode(arguments.text.read_text(), add_special_tokens=False).ids
        _, mean = oracle.negative_log_likelihood(model, ids, 0, 512)
        print(f"perplexity {math.exp(mean):.4f}")
    for prompt in arguments.prompts:
        ids = [0, *tokenizer.encode(prompt, add_special_tokens=False).ids]
        print(tokenizer.decode(sample(model, ids, arguments.n)) + "\n\n---")


if __name__ == "__main__":
    main()
