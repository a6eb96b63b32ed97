"""Beam search over a catalogue of 12,101 Semantic IDs with the paper's T5."""

import random
import tempfile

import torch
import transformers

import _t5
from _beam import BeamSearch, Trie
from _harness import Table, Worker, arguments, in_turn, timed

ITEMS, CODES, LEVELS, USERS = 12101, 256, 3, 2000


class HuggingFace:
    """`generate`, free or with a function that lists the tokens allowed after a prefix."""

    def __init__(self, model, items):
        self.model, self.length = model.eval(), len(items[0])
        self.allowed = {}
        for item in items:
            for end in range(len(item)):
                self.allowed.setdefault(tuple(item[:end]), set()).add(item[end])
        self.allowed = {prefix: sorted(tokens) for prefix, tokens in self.allowed.items()}

    def __call__(self, ids, mask, beams, constrained):
        rule = (lambda user, prefix: self.allowed.get(tuple(prefix.tolist()[1:]), [1])) if constrained else None
        with torch.inference_mode():
            return self.model.generate(input_ids=ids, attention_mask=mask, num_beams=beams, num_return_sequences=beams,
                                       max_new_tokens=self.length, min_new_tokens=self.length, length_penalty=0.0,
                                       do_sample=False, prefix_allowed_tokens_fn=rule)


def draw_codes():
    rng = random.Random(0)
    return [[rng.randrange(CODES) for _ in range(LEVELS)] for _ in range(ITEMS)]


def layout(index):
    """The tokens of every position, and users with full histories."""
    items, first_user = index["items"], index["first_user"]
    # The levels follow one another behind the two special tokens; the suffix takes what is left below the users.
    ranges = [(2 + level * CODES, CODES) for level in range(LEVELS)]
    ranges.append((2 + LEVELS * CODES, first_user - 2 - LEVELS * CODES))
    rng = random.Random(1)
    dense = [sequence(index, user, [rng.randrange(1, ITEMS + 1) for _ in range(20)]) for user in range(512)]
    return ranges, dense


def sequence(index, user, history):
    return [index["first_user"] + user % USERS] + [t for item in history for t in index["items"][item - 1]]


class Inputs:
    """Users for both sides."""

    def __init__(self, sequences):
        self.examples = [(tokens, []) for tokens in sequences]
        padded = _t5.padded([(tokens, [0]) for tokens, _ in self.examples])
        self.ids, self.mask = padded["input_ids"], padded["attention_mask"]
        ragged = _t5.ragged(self.examples)
        self.ragged = {"tokens": ragged["tokens"], "offsets": ragged["offsets"]}


def check(worker, hand, hugging_face, inputs, beams):
    ours = worker("decode-search", beams=beams, batch=len(inputs.examples), **inputs.ragged)
    tokens, scores = hand(inputs.ids, inputs.mask, beams)
    assert ours["tokens"] == tokens.tolist(), "another order than the hand-written search's"
    worst = (torch.tensor(ours["scores"]) - scores).abs().max().item()
    assert worst < 1e-3, worst
    theirs = hugging_face(inputs.ids, inputs.mask, beams, True)
    assert theirs[:, 1:].reshape(len(inputs.examples), beams, -1).tolist() == ours["tokens"], "generate differs"
    print(f"the same sequences from all three; largest difference of scores {worst:.1e}", flush=True)


def main():
    args = arguments()
    table = Table("decode", args)
    codes = draw_codes()
    worker = Worker()
    index = worker("decode-index", codes=codes, codebook_sizes=[CODES] * LEVELS, user_tokens=USERS)
    items, vocab = index["items"], index["vocab_size"]
    ranges, dense = layout(index)
    real = [sequence(index, user, history) for user, history, _ in _t5.histories(512)]

    with tempfile.TemporaryDirectory() as scratch:
        folder = _t5.save(f"{scratch}/model", 0.1, vocab=vocab)
        worker("decode-load", model=folder)
        model = _t5.load(folder)
        hand, hugging_face = BeamSearch(model, Trie(items, ranges)), HuggingFace(model, items)
        check(worker, hand, hugging_face, Inputs(real[:6] + dense[:2]), 10)

        for kind, users in (("full", dense), ("real", real)):
            for batch in (1, 32, 256):
                for beams in (10, 20, 50):
                    if args.quick and (beams == 20 or batch == 32):
                        continue
                    compare(table, worker, hand, hugging_face, kind, users, batch, beams, args.quick)
    worker.close()
    table.write(torch=torch.__version__, transformers=transformers.__version__)


def compare(table, worker, hand, hugging_face, kind, users, batch, beams, quick):
    name = f"{kind} histories, B {batch}, K {beams}"
    rounds = {1: 31, 32: 7, 256: 3}[batch] // (3 if quick else 1) or 1
    inputs = [Inputs(users[start % 256:start % 256 + batch]) for start in range(0, rounds * batch, batch)]
    at = lambda round: inputs[round % len(inputs)]
    ours = lambda round: worker("decode-search", beams=beams, batch=batch, **at(round).ragged)["seconds"]
    bars = {"full": {1: (2.0, None), 32: (1.25, None), 256: (1.25, None)}, "real": dict.fromkeys((1, 32, 256), (2.5, 5.0))}
    if table.wants(name):
        by_hand = lambda round: timed(lambda: hand(at(round).ids, at(round).mask, beams))
        times = in_turn(rounds, {"torch, hand-vectorised": by_hand}, ours)
        table.add(name, times, *bars[kind][batch], per_round=batch, unit="users/s")
    name += ", generate"
    # With 256 users and 50 beams generate alone takes more than 24 GiB.
    if kind == "full" and table.wants(name) and (batch, beams) not in ((256, 20), (256, 50)):
        generate = lambda constrained: lambda round: timed(
            lambda: hugging_face(at(round).ids, at(round).mask, beams, constrained))
        sides = {"transformers generate": generate(False), "transformers generate, prefix function": generate(True)}
        times = in_turn(max(1 if quick else 3, rounds // 3), sides, ours)
        table.add(name, times, 5.0 if batch == 1 else 8.0, per_round=batch, unit="users/s")


if __name__ == "__main__":
    main()
