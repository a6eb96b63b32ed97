"""The paper's T5 in transformers, and batches for it."""

import os
import random
from pathlib import Path

import torch
from transformers import T5Config, T5ForConditionalGeneration

VOCAB, LEVELS, CODES, USERS = 3027, 4, 256, 2000


def config(dropout, vocab=VOCAB):
    return T5Config(vocab_size=vocab, d_model=128, d_kv=64, d_ff=1024, num_layers=4, num_decoder_layers=4, num_heads=6,
                    dropout_rate=dropout, feed_forward_proj="relu", pad_token_id=0, eos_token_id=1,
                    decoder_start_token_id=0)


def save(folder, dropout, seed=0, vocab=VOCAB):
    torch.manual_seed(seed)
    T5ForConditionalGeneration(config(dropout, vocab)).save_pretrained(folder)
    return folder


def load(folder):
    return T5ForConditionalGeneration.from_pretrained(folder)


def sid(item):
    """A Semantic ID for a number: what matters here is its length."""
    rng = random.Random(item)
    return [2 + level * CODES + rng.randrange(CODES if level < LEVELS - 1 else 1) for level in range(LEVELS)]


def user_token(user):
    return 2 + (LEVELS - 1) * CODES + 1 + user % USERS


def example(user, history, target):
    return [user_token(user)] + [code for item in history for code in sid(item)], sid(target)


def dense(rows, items=20, seed=0):
    rng = random.Random(seed)
    draw = lambda: rng.randrange(12101)
    return [example(rng.randrange(10 ** 6), [draw() for _ in range(items)], draw()) for _ in range(rows)]


def sequences():
    """Beauty's histories, as numbers of items."""
    if "GENREC_DATA" not in os.environ:
        raise SystemExit("GENREC_DATA is not set; the rows on real histories need beauty/sequences.txt below it")
    lines = (Path(os.environ["GENREC_DATA"]) / "beauty" / "sequences.txt").read_text().splitlines()
    return [[int(field) for field in line.split()] for line in lines if line.strip()]


def windows(longest=20, seed=0):
    """All-prefix training windows of leave-one-out, shuffled: the last two items of a user are not trained on."""
    examples = []
    for user, *items in sequences():
        for end in range(1, len(items) - 2):
            examples.append((user, items[max(0, end - longest):end], items[end]))
    random.Random(seed).shuffle(examples)
    return examples


def histories(count, longest=20, seed=0):
    """What the test asks of `count` users: everything but the last item."""
    users = sequences()
    random.Random(seed).shuffle(users)
    return [(user, items[:-1][-longest:], items[-1]) for user, *items in users[:count]]


def ragged(examples):
    """The batch as genrec takes it: end to end."""
    offsets = [0]
    for tokens, _ in examples:
        offsets.append(offsets[-1] + len(tokens))
    return {"tokens": [t for tokens, _ in examples for t in tokens], "offsets": offsets,
            "labels": [t for _, labels in examples for t in labels]}


def padded(examples):
    """The batch as transformers takes it: padded to its longest."""
    longest = max(len(tokens) for tokens, _ in examples)
    ids = torch.tensor([tokens + [0] * (longest - len(tokens)) for tokens, _ in examples])
    mask = torch.tensor([[1] * len(tokens) + [0] * (longest - len(tokens)) for tokens, _ in examples])
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor([labels for _, labels in examples])}


