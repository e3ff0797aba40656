"""Trains the demo model: a LLaMA of 7.3 million parameters, next-token loss, AdamW.

The learning rate follows the wall clock, so that a run can be paused (SIGSTOP) or share its machine
and still end annealed at a given time: warm up, hold, and from DECAY_FROM of the time fall to zero.
A checkpoint holds everything that a later run with --resume needs. SIGTERM saves and stops.
--processes N shares every batch among N processes of --threads threads each, which meet once a step:
on a busy machine that is much faster than one process whose threads meet at every product.

    train.py DATA --out FOLDER (--until HH:MM | --minutes M) [--resume] [--bf16]
             [--processes N] [--threads T]

DATA is the folder with train.json, heldout.json (corpus.py) and tokenizer.json (train_tokenizer.py).
FOLDER becomes a Hugging Face folder in float32; log.jsonl in it is the loss curve.
"""

import argparse
import datetime
import json
import math
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import torch
import torch.distributed as distributed
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CONTEXT = 512
BOS, EOS = 0, 1
BATCH = 4
PEAK_RATE = 3e-3
WARMUP_STEPS = 150
DECAY_FROM = 0.55
WEIGHT_DECAY = 0.05
SEED = 20
REPORT_EVERY = 50
EVALUATE_EVERY = 500
CHECKPOINT_SECONDS = 150


def configuration(vocabulary):
    return LlamaConfig(
        vocab_size=vocabulary, hidden_size=256, intermediate_size=768, num_hidden_layers=8,
        num_attention_heads=4, num_key_value_heads=2, head_dim=64,
        max_position_embeddings=CONTEXT, rms_norm_eps=1e-5, tie_word_embeddings=True,
        attention_bias=False, mlp_bias=False, hidden_act="silu",
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        bos_token_id=BOS, eos_token_id=EOS, use_cache=False)


class Corpus:
    """The ids of all documents in one row, and windows of it in a seeded order."""

    def __init__(self, data, tokenizer):
        texts = json.loads((data / "train.json").read_text())
        rows = tokenizer.encode_batch(texts, add_special_tokens=False)
        self.ids = np.concatenate([np.array([BOS, *row.ids, EOS], dtype=np.int64) for row in rows])
        newline = tokenizer.token_to_id("\u010a")
        ends = np.flatnonzero(self.ids == newline) + 1
        self.starts = np.array([i for i in ends if self.ids[i] != newline], dtype=np.int64)

    def windows(self, epoch):
        """Starts of windows: every id about once; half of them moved to a paragraph's start."""
        random = np.random.default_rng([SEED, epoch])
        last = len(self.ids) - CONTEXT
        starts = np.arange(random.integers(CONTEXT), last, CONTEXT)
        places = np.searchsorted(self.starts, starts).clip(max=len(self.starts) - 1)
        snapped = self.starts[places].clip(max=last)
        starts = np.where(random.random(len(starts)) < 0.5, snapped, starts)
        return random.permutation(starts)

    def batch(self, starts):
        """Inputs have BOS in front; targets are the ids themselves."""
        target = np.stack([self.ids[start:start + CONTEXT] for start in starts])
        source = np.concatenate([np.full((len(starts), 1), BOS), target[:, :-1]], axis=1)
        return torch.from_numpy(source), torch.from_numpy(target)


def held_out_blocks(data, tokenizer, blocks):
    """A few blocks of every held-out piece, for the loss shown while training."""
    pieces = json.loads((data / "heldout.json").read_text()).values()
    rows = []
    for piece in pieces:
        ids = tokenizer.encode(piece, add_special_tokens=False).ids
        count = min(blocks, len(ids) // (CONTEXT - 1))
        rows += [[BOS, *ids[i * (CONTEXT - 1):(i + 1) * (CONTEXT - 1)]] for i in range(count)]
    return torch.tensor(rows)


def loss_of(model, source, target):
    logits = model(input_ids=source).logits
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), target.flatten())


@torch.no_grad()
def evaluate(model, rows, device):
    model.eval()
    losses = [loss_of(model, part[:, :-1].to(device), part[:, 1:].to(device)).item() * len(part)
              for part in rows.split(8)]
    model.train()
    return sum(losses) / len(rows)


def deadline(arguments, now):
    if arguments.minutes:
        return now + 60 * arguments.minutes
    hour, minute = map(int, arguments.until.split(":"))
    end = datetime.datetime.now(datetime.timezone.utc).replace(hour=hour, minute=minute, second=0)
    if end.timestamp() <= now:
        end += datetime.timedelta(days=1)
    return end.timestamp()


def rate(step, progress):
    warmup = min(1.0, (step + 1) / WARMUP_STEPS)
    if progress <= DECAY_FROM:
        return PEAK_RATE * warmup
    left = max(0.0, (1 - progress) / (1 - DECAY_FROM))
    return PEAK_RATE * warmup * left


def optimizer_of(model, device):
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    return torch.optim.AdamW(
        [{"params": matrices, "weight_decay": WEIGHT_DECAY},
         {"params": vectors, "weight_decay": 0.0}],
        lr=0.0, betas=(0.9, 0.95), fused=True)


def save(model, tokenizer, folder, state, optimizer):
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|bos|>", eos_token="<|eos|>",
        model_max_length=CONTEXT).save_pretrained(folder)
    partial = folder / "checkpoint.tmp"
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), **state}, partial)
    partial.replace(folder / "checkpoint.pt")


class Team:
    """The processes that share a batch. Rank 0 is the one started by hand; it starts the others."""

    def __init__(self, size, meeting):
        self.size, self.rank = size, int(os.environ.get("DEMO_RANK", "0"))
        if size == 1:
            return
        if self.rank == 0:
            meeting.parent.mkdir(parents=True, exist_ok=True)
            meeting.unlink(missing_ok=True)
            for rank in range(1, size):
                subprocess.Popen([sys.executable, *sys.argv],
                                 env={**os.environ, "DEMO_RANK": str(rank)})
        distributed.init_process_group("gloo", init_method=f"file://{meeting.resolve()}",
                                       rank=self.rank, world_size=size,
                                       timeout=datetime.timedelta(days=1))

    def follow(self, progress, stopping):
        """What rank 0 thinks of the time."""
        if self.size == 1:
            return progress, stopping
        word = torch.tensor([progress, float(stopping)], dtype=torch.float64)
        distributed.broadcast(word, 0)
        return float(word[0]), bool(word[1])

    def average(self, parameters):
        if self.size == 1:
            return
        flat = torch.cat([p.grad.flatten() for p in parameters])
        distributed.all_reduce(flat)
        for p, part in zip(parameters, flat.split([p.numel() for p in parameters])):
            p.grad.copy_(part.view_as(p) / self.size)


class Run:
    def __init__(self, arguments):
        self.arguments = arguments
        self.team = Team(arguments.processes, arguments.out / "meeting")
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        torch.set_num_threads(arguments.threads)
        torch.manual_seed(SEED)
        self.tokenizer = Tokenizer.from_file(str(arguments.data / "tokenizer.json"))
        self.corpus = Corpus(arguments.data, self.tokenizer)
        self.held_out = held_out_blocks(arguments.data, self.tokenizer, 2)
        self.model = LlamaForCausalLM(configuration(self.tokenizer.get_vocab_size()))
        self.model.to(self.device).train()
        self.optimizer = optimizer_of(self.model, self.device)
        self.state = {"step": 0, "epoch": 0, "place": 0, "started": time.time()}
        self.stopping = False
        checkpoint = arguments.out / "checkpoint.pt"
        if arguments.resume and checkpoint.exists():
            self.restore(torch.load(checkpoint, map_location=self.device))
        self.end = deadline(arguments, time.time())
        self.log = None

    def restore(self, saved):
        self.model.load_state_dict(saved.pop("model"))
        self.optimizer.load_state_dict(saved.pop("optimizer"))
        self.state = saved

    def write(self, **values):
        if self.team.rank > 0:
            return
        line = json.dumps(values)
        print(line, flush=True)
        self.log.write(line + "\n")
        self.log.flush()

    def next_batch(self):
        state = self.state
        order = self.corpus.windows(state["epoch"])
        if state["place"] + BATCH > len(order):
            state["epoch"] += 1
            state["place"] = 0
            order = self.corpus.windows(state["epoch"])
        starts = order[state["place"]:state["place"] + BATCH]
        state["place"] += BATCH
        return self.corpus.batch(starts[self.team.rank::self.team.size])

    def step(self, progress):
        source, target = self.next_batch()
        for group in self.optimizer.param_groups:
            group["lr"] = rate(self.state["step"], progress)
        with torch.autocast(self.device, torch.bfloat16, enabled=self.arguments.bf16):
            loss = loss_of(self.model, source.to(self.device), target.to(self.device))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.team.average(list(self.model.parameters()))
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.state["step"] += 1
        return loss.item()

    def save(self):
        if self.team.rank == 0:
            save(self.model, self.tokenizer, self.arguments.out, self.state, self.optimizer)

    def train(self):
        self.arguments.out.mkdir(parents=True, exist_ok=True)
        if self.team.rank == 0:
            self.log = open(self.arguments.out / "log.jsonl",
                            "a" if self.arguments.resume else "w")
        begin = self.state["started"]
        losses, saved, reported = [], time.time(), time.time()
        parameters = sum(p.numel() for p in self.model.parameters())
        self.write(parameters=parameters, corpus_ids=len(self.corpus.ids), device=self.device,
                   minutes=round((self.end - begin) / 60, 1))
        while True:
            progress, stopping = self.team.follow((time.time() - begin) / (self.end - begin),
                                                  self.stopping)
            if stopping or progress >= 1:
                break
            losses.append(self.step(progress))
            step = self.state["step"]
            if step % REPORT_EVERY == 0:
                now = time.time()
                speed = REPORT_EVERY * BATCH * CONTEXT / (now - reported)
                self.write(step=step, ids=step * BATCH * CONTEXT, minutes=round((now - begin) / 60, 2),
                           loss=round(float(np.mean(losses)), 4), ids_per_s=round(speed),
                           rate=rate(step, progress), epoch=self.state["epoch"])
                losses, reported = [], now
            if step % EVALUATE_EVERY == 0:
                self.report_held_out()
            if time.time() - saved > CHECKPOINT_SECONDS:
                self.save()
                saved = time.time()
        self.report_held_out()
        self.save()

    def report_held_out(self):
        if self.team.rank > 0:
            return
        loss = evaluate(self.model, self.held_out, self.device)
        self.write(step=self.state["step"], held_out_loss=round(loss, 4),
                   held_out_perplexity=round(math.exp(loss), 3))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    end = parser.add_mutually_exclusive_group(required=True)
    end.add_argument("--until", metavar="HH:MM", help="UTC time at which training ends")
    end.add_argument("--minutes", type=float)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--bf16", action="store_true", help="bfloat16 autocast")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2, help="threads of each process")
    run = Run(parser.parse_args())

    def stop(_signal, _frame):
        run.stopping = True

    signal.signal(signal.SIGTERM, stop)
    run.train()


if __name__ == "__main__":
    main()
