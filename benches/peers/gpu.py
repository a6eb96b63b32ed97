"""On one CUDA GPU: a training step and beam search of the paper's T5, in f32 and in bf16, PyTorch eager and compiled.

Both sides use TF32 where PyTorch would by default, which is nowhere: f32 is f32. The worker must have been built with the
feature `cuda`; benches/compare does so."""

import tempfile

import torch
import transformers

import _t5
from _beam import BeamSearch, Trie
from _harness import Table, Worker, arguments, in_turn, timed
from decode import CODES, LEVELS, USERS, Inputs, draw_codes, layout
from train import check

LR = 1e-4


class Peer:
    """transformers' T5 with torch's fused AdamW; autocast for bf16, so that weights stay f32 on both sides."""

    def __init__(self, folder, bf16, compiled):
        self.model = _t5.load(folder).cuda().train()
        self.call = torch.compile(self.model) if compiled else self.model
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=LR, fused=True)
        self.bf16 = bf16

    def step(self, batch):
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", torch.bfloat16, enabled=self.bf16):
            loss = self.call(**batch).loss
        loss.backward()
        self.optimizer.step()
        torch.cuda.synchronize()


def on_gpu(batch):
    return {name: value.cuda() for name, value in batch.items()}


def train(table, folder, bf16, kind, batches, rounds):
    work = f"train step, {kind}, {'bf16' if bf16 else 'f32'}"
    if not table.wants(work):
        return
    worker = Worker()
    worker("train-load", model=folder, cuda=True, bf16=bf16)
    ragged, padded = [_t5.ragged(batch) for batch in batches], [_t5.padded(batch) for batch in batches]
    at = lambda round: round % len(batches)
    sides = {}
    for compiled in (False, True):
        peer = Peer(folder, bf16, compiled)
        # Copying to the device is part of a step on either side.
        sides[f"transformers, {'compiled' if compiled else 'eager'}"] = (
            lambda round, peer=peer: timed(lambda: peer.step(on_gpu(padded[at(round)]))))
    ours = lambda round: worker("train-step", batch=ragged[at(round)], seed=round, lr=LR)["seconds"]
    times = in_turn(rounds, sides, ours, warmup=max(3, len(batches)))
    table.add(work, times, 1.0, per_round=len(batches[0]), unit="examples/s")
    worker.close()


def decode(table, folder, bf16, index, codes, users, rounds):
    """All sizes of beam search in one type: both sides load the model and the catalogue once."""
    sizes = [(batch, beams) for batch in (1, 32, 256) for beams in (10, 20, 50)]
    name = lambda batch, beams: f"beam search, full histories, B {batch}, K {beams}, {'bf16' if bf16 else 'f32'}"
    if not any(table.wants(name(*size)) for size in sizes):
        return
    worker = Worker()
    worker("decode-index", codes=codes, codebook_sizes=[CODES] * LEVELS, user_tokens=USERS)
    worker("decode-load", model=folder, cuda=True, bf16=bf16)
    ranges, _ = layout(index)
    model = _t5.load(folder).cuda()
    model = model.bfloat16() if bf16 else model
    with torch.device("cuda"):
        hand = BeamSearch(model, Trie(index["items"], ranges))
        for batch, beams in sizes:
            if not table.wants(name(batch, beams)):
                continue
            inputs = Inputs(users[:batch])
            ids, mask = inputs.ids.cuda(), inputs.mask.cuda()

            def by_hand(_):
                def work():
                    hand(ids, mask, beams)
                    torch.cuda.synchronize()
                return timed(work)

            def search(_):
                return worker("decode-search", beams=beams, batch=batch, **inputs.ragged)["seconds"]

            if not bf16:
                tokens, scores = hand(ids, mask, beams)
                ours = worker("decode-search", beams=beams, batch=batch, **inputs.ragged)
                worst = (torch.tensor(ours["scores"], device="cuda") - scores).abs().max().item()
                same = (torch.tensor(ours["tokens"], device="cuda") == tokens).all(-1).float().mean().item()
                assert worst < 1e-2 and same > 0.99, (worst, same)
                print(f"{same:.4f} of the sequences in the same places; largest difference of scores {worst:.1e}",
                      flush=True)
            times = in_turn(rounds, {"torch, hand-vectorised": by_hand}, search, warmup=3)
            table.add(name(batch, beams), times, 1.0, per_round=batch, unit="users/s")
    worker.close()


def main():
    args = arguments()
    table = Table("gpu", args)
    rounds = 5 if args.quick else 21
    codes = draw_codes()
    worker = Worker()
    index = worker("decode-index", codes=codes, codebook_sizes=[CODES] * LEVELS, user_tokens=USERS)
    worker.close()
    _, users = layout(index)
    with tempfile.TemporaryDirectory() as scratch:
        folder = _t5.save(f"{scratch}/train", 0.1)
        worker = Worker()
        check(_t5.save(f"{scratch}/plain", 0.0), _t5.dense(8), worker, scratch, cuda=True)
        worker.close()
        real = [[_t5.example(*window) for window in _t5.windows()[start * 256:(start + 1) * 256]] for start in range(4)]
        for bf16 in (False, True):
            train(table, folder, bf16, "dense: 81 source tokens, B 256", [_t5.dense(256, seed=s) for s in range(2)], rounds)
            train(table, folder, bf16, "real Beauty windows, B 256", real, rounds)
        folder = _t5.save(f"{scratch}/decode", 0.1, vocab=index["vocab_size"])
        for bf16 in (False, True):
            decode(table, folder, bf16, index, codes, users, rounds)
    name = torch.cuda.get_device_name()
    table.write(torch=torch.__version__, transformers=transformers.__version__, gpu=name, cuda=torch.version.cuda)


if __name__ == "__main__":
    main()
