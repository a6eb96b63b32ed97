"""Trajectories of AdamW, Adagrad (torch) and Adafactor (transformers) on fixed gradients.

python optim.py <output dir>
"""

import json
import sys
from pathlib import Path

import torch
from transformers.optimization import Adafactor

STEPS = 6
SHAPES = {"bias": [5], "matrix": [4, 3], "stack": [2, 3, 2]}
CASES = {
    "adam_w": (0.01, lambda p: torch.optim.AdamW(p, lr=0.01), {}),
    "adam_w_other": (
        0.1,
        lambda p: torch.optim.AdamW(p, lr=0.1, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1),
        {"beta1": 0.8, "beta2": 0.95, "eps": 1e-6, "weight_decay": 0.1},
    ),
    "adagrad": (0.4, lambda p: torch.optim.Adagrad(p, lr=0.4), {}),
    "adagrad_other": (
        0.1,
        lambda p: torch.optim.Adagrad(p, lr=0.1, lr_decay=0.1, weight_decay=0.05, initial_accumulator_value=0.2, eps=1e-6),
        {"lr_decay": 0.1, "weight_decay": 0.05, "initial_accumulator": 0.2, "eps": 1e-6},
    ),
    "adafactor": (0.01, lambda p: Adafactor(p, lr=0.01, relative_step=False, warmup_init=False), {}),
    "adafactor_other": (
        0.05,
        lambda p: Adafactor(
            p, lr=0.05, relative_step=False, warmup_init=False, scale_parameter=False, beta1=0.9, weight_decay=0.1,
            clip_threshold=0.5,
        ),
        {"scale_parameter": False, "beta1": 0.9, "weight_decay": 0.1, "clip_threshold": 0.5},
    ),
}


def main(out: Path) -> None:
    torch.manual_seed(0)
    start = {name: torch.randn(shape) for name, shape in SHAPES.items()}
    grads = [{name: torch.randn(shape) * (1 + step) for name, shape in SHAPES.items()} for step in range(STEPS)]
    flat = lambda tensors: {name: t.flatten().tolist() for name, t in tensors.items()}
    record = {"shapes": SHAPES, "start": flat(start), "grads": [flat(g) for g in grads], "cases": []}
    for case, (lr, make, options) in CASES.items():
        params = {name: t.clone().requires_grad_() for name, t in start.items()}
        optimizer = make(list(params.values()))
        after = []
        for grad in grads:
            for name, p in params.items():
                p.grad = grad[name].clone()
            optimizer.step()
            after.append(flat({name: p.detach() for name, p in params.items()}))
        kind = case.removesuffix("_other")
        record["cases"].append({"lr": lr, "config": {"type": kind, **options}, "after": after})
    out.mkdir(parents=True, exist_ok=True)
    (out / "optim.json").write_text(json.dumps(record))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
