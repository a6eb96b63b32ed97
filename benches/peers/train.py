"""A training step: forward, backward and AdamW of the paper's T5."""

import statistics
import tempfile
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file

import _t5
from _harness import Table, Worker, arguments, in_turn, peak_here, timed

LR = 1e-4


class Peer:
    """transformers' T5 with torch's fused AdamW."""

    def __init__(self, folder):
        self.model = _t5.load(folder).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=LR, fused=True)

    def step(self, parts):
        """One step over the parts of a batch."""
        rows = sum(part["labels"].shape[0] for part in parts)
        self.optimizer.zero_grad(set_to_none=True)
        for part in parts:
            loss = self.model(**part).loss * (part["labels"].shape[0] / rows)
            loss.backward()
        self.optimizer.step()


def cut(examples, micro, by_length=False):
    """Micro-batches: of the batch as it is padded, or of its rows by length, each padded to its own longest."""
    if by_length:
        examples = sorted(examples, key=lambda example: len(example[0]))
        return [_t5.padded(examples[start:start + micro]) for start in range(0, len(examples), micro)]
    whole = _t5.padded(examples)
    return [{name: value[start:start + micro] for name, value in whole.items()}
            for start in range(0, len(examples), micro)]


def check(folder, examples, worker, scratch, **place):
    """Loss and every gradient without dropout; `place` says where the worker computes."""
    model = _t5.load(folder)
    model.zero_grad()
    loss = model(**_t5.padded(examples)).loss
    loss.backward()
    worker("train-load", model=str(folder), **place)
    out = Path(scratch) / "gradients.safetensors"
    answer = worker("train-gradients", batch=_t5.ragged(examples), out=str(out))
    assert abs(answer["loss"] - loss.item()) < 1e-4 * loss.item(), (answer, loss)
    got, names = load_file(out), dict(model.named_parameters())
    worst = max((got[name] - names[name].grad).abs().max().item() / names[name].grad.abs().max().item() for name in got)
    assert len(got) == len(names) and worst < 1e-3, worst
    print(f"the same loss and gradients: {answer['loss']:.5f}, largest relative difference {worst:.1e}", flush=True)


def compare(table, work, batches, folder, rounds, at_least, stretch, micro, by_length=False):
    worker, peer = Worker(), Peer(folder)
    worker("train-load", model=str(folder))
    rows = len(batches[0])
    ragged = [_t5.ragged(batch) for batch in batches]
    at = lambda round: round % len(batches)

    def torch_side(*how):
        parts = [cut(batch, *how) for batch in batches]
        return lambda round: timed(lambda: peer.step(parts[at(round)]))

    if by_length:
        sides = {f"transformers, micro-batches of {micro} by length": torch_side(micro, True)}
    else:
        sides = {"transformers, whole batch": torch_side(rows),
                 f"transformers, micro-batches of {micro}": torch_side(micro)}
    ours = lambda round: worker("train-step", batch=ragged[at(round)], seed=round, lr=LR)["seconds"]
    times = in_turn(rounds, sides, ours)
    mean_tokens = statistics.mean(len(tokens) for batch in batches for tokens, _ in batch)
    table.add(work, times, at_least, stretch, per_round=rows, unit="examples/s", mean_tokens=mean_tokens)
    peak = worker.peak()
    worker.close()
    return peak


def main():
    args = arguments()
    table = Table("train", args)
    torch.manual_seed(0)
    rows, rounds, micro = (64, 3, 16) if args.quick else (256, 7, 64)
    with tempfile.TemporaryDirectory() as scratch:
        plain, folder = (_t5.save(f"{scratch}/{name}", dropout) for name, dropout in (("plain", 0.0), ("model", 0.1)))
        real = [[_t5.example(*window) for window in _t5.windows()[start * rows:(start + 1) * rows]]
                for start in range(rounds)]
        worker = Worker()
        check(plain, _t5.dense(8) + real[0][:24], worker, scratch)
        worker.close()
        if table.wants("dense"):
            compare(table, "train step, dense: 81 source tokens, dropout 0.1", [_t5.dense(rows, seed=s) for s in range(2)],
                    folder, rounds, 1.6, 2.2, micro)
        if table.wants("real"):
            peak = compare(table, "train, real Beauty windows", real, folder, rounds, 4.0, 8.0, micro)
            table.bound("peak memory of that training, GiB", peak / 2 ** 30, 1.5, 0.7,
                        peer_value=round(peak_here() / 2 ** 30, 2))
        if table.wants("real"):
            # Not what anybody's training loop does, but what PyTorch can do.
            compare(table, "train, real Beauty windows, against batches sorted by length", real, folder, rounds, 1.0, None,
                    micro, True)
        table.write(torch=torch.__version__, transformers=transformers.__version__)


if __name__ == "__main__":
    main()
