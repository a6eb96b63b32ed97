"""What transformers' T5 reaches on Beauty in a given time: the same split, Semantic IDs, model shape, optimiser and batch size as a
run of ours, whose directory GENREC_RUN names. GENREC_MINUTES of training, 40 by default, then all test users by beam search.

The encoder is bidirectional whatever the run's is, and batches are padded to their longest, as usual. The learning rate falls
over the last quarter of the time, as ours does."""

import json
import math
import os
import random
import time
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file
from transformers import T5Config, T5ForConditionalGeneration
from transformers.optimization import Adafactor

import _t5
from _beam import BeamSearch, Trie
from _harness import arguments

HISTORY, BEAMS, TOP = 20, 20, 10


def fnv1a(text):
    value = 0xcbf29ce484222325
    for byte in text.encode():
        value = (value ^ byte) * 0x100000001b3 % 2 ** 64
    return value


class Tokens:
    """Semantic IDs and users as genrec numbers them: two special tokens, every position's codes, users."""

    def __init__(self, run):
        layout = json.loads((run / "index" / "index.json").read_text())["layout"]
        sizes = layout["codebook_sizes"] + ([layout["suffix_size"]] if layout.get("suffix_size") else [])
        starts = [2]
        for size in sizes:
            starts.append(starts[-1] + size)
        self.ranges = [(start, size) for start, size in zip(starts, sizes)]
        self.first_user = starts[-1]
        self.users = json.loads((run / "run.json").read_text())["config"]["decode"]["user_tokens"]
        sids = load_file(run / "index" / "index.safetensors")["sids"].tolist()
        self.items = [[start + code for start, code in zip(starts, sid)] for sid in sids]
        self.size = self.first_user + self.users

    def source(self, user, history):
        user = [self.first_user + fnv1a(str(user)) % self.users] if self.users else []
        return user + [token for item in history[-HISTORY:] for token in self.items[item - 1]]


def main():
    args = arguments()
    run, minutes = Path(os.environ["GENREC_RUN"]), float(os.environ.get("GENREC_MINUTES", 40))
    torch.set_num_threads(int(os.environ["RAYON_NUM_THREADS"]))
    torch.manual_seed(0)
    settings = json.loads((run / "run.json").read_text())["config"]
    shape, batch = settings["model"], settings["batch_size"]
    tokens, sequences = Tokens(run), _t5.sequences()
    windows = [(user, items[max(0, end - HISTORY):end], items[end])
               for user, *items in sequences for end in range(1, len(items) - 2)]
    keys = ("d_model", "d_kv", "d_ff", "num_layers", "num_decoder_layers", "num_heads", "dropout_rate",
            "relative_attention_num_buckets", "relative_attention_max_distance", "feed_forward_proj")
    model = T5ForConditionalGeneration(T5Config(vocab_size=tokens.size, pad_token_id=0, eos_token_id=1,
                                                decoder_start_token_id=0, **{key: shape[key] for key in keys})).train()
    optimizer = Adafactor(model.parameters(), lr=0.01, scale_parameter=True, relative_step=False, warmup_init=False)
    order, at, steps, examples = list(range(len(windows))), len(windows), 0, 0
    shuffle, limit, start = random.Random(0), minutes * 60, time.perf_counter()
    while (spent := time.perf_counter() - start) < limit:
        if at + batch > len(order):
            shuffle.shuffle(order)
            at = 0
        rows = [windows[i] for i in order[at:at + batch]]
        at += batch
        steps += 1
        examples += len(rows)
        rate = 0.01 * min(steps / 500, math.sqrt(500 / steps)) * min(1.0, (limit - spent) / (0.25 * limit))
        for group in optimizer.param_groups:
            group["lr"] = rate
        inputs = _t5.padded([(tokens.source(user, history), tokens.items[item - 1]) for user, history, item in rows])
        optimizer.zero_grad(set_to_none=True)
        loss = model(**inputs).loss
        loss.backward()
        optimizer.step()
        if steps % 200 == 0:
            print(f"{spent / 60:.1f} min, {examples} examples, loss {loss.item():.3f}", flush=True)
    search = BeamSearch(model, Trie(tokens.items, tokens.ranges))
    hits, gain, questions = 0, 0.0, [(user, items[:-1], items[-1]) for user, *items in sequences]
    if args.quick:
        questions = random.Random(1).sample(questions, 1000)
    # By length, so that a batch pads little.
    questions.sort(key=lambda question: len(question[1]))
    for first in range(0, len(questions), 128):
        part = questions[first:first + 128]
        inputs = _t5.padded([(tokens.source(user, history), [0]) for user, history, _ in part])
        found, _ = search(inputs["input_ids"], inputs["attention_mask"], BEAMS)
        for (_, _, item), ranked in zip(part, found[:, :TOP].tolist()):
            if tokens.items[item - 1] in ranked:
                hits += 1
                gain += 1 / math.log2(2 + ranked.index(tokens.items[item - 1]))
    result = {"minutes": minutes, "steps": steps, "examples": examples, "users": len(questions),
              "recall@10": hits / len(questions), "ndcg@10": gain / len(questions),
              "versions": {"torch": torch.__version__, "transformers": transformers.__version__}}
    print(json.dumps(result, indent=1))
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "quality.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
