"""SASRec in PyTorch as the authors lay it out: sequences padded at the front, padding masked, torch's own attention.

    python sasrec.py OUT

writes, for every configuration, OUT/NAME/{config.json,model.safetensors} as genrec-model reads them, OUT/NAME/cases.json
with the sequences, the histories and the loss, and OUT/NAME/expected.safetensors with the scores of the histories and the
gradients of the loss. See sasrec/README.md.
"""

import json
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

ITEMS, MAX_LEN = 23, 9
SHAPES = {
    "queries": dict(d_model=16, d_ff=16, num_layers=2, num_heads=1, norm="queries"),
    "queries_heads": dict(d_model=12, d_ff=20, num_layers=3, num_heads=3, norm="queries"),
    "branches": dict(d_model=16, d_ff=24, num_layers=2, num_heads=2, norm="branches", layer_norm_epsilon=1e-5),
    "smoothed": dict(d_model=8, d_ff=8, num_layers=1, num_heads=2, norm="queries",
                     loss={"type": "full_cross_entropy", "label_smoothing": 0.1}),
}
LENGTHS = [2, 10, 1, 14, 5, 9, 3]


class Block(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
        d, d_ff, eps = config["d_model"], config["d_ff"], config["layer_norm_epsilon"]
        self.heads, self.branches = config["num_heads"], config["norm"] == "branches"
        self.attention_norm, self.feed_forward_norm = torch.nn.LayerNorm(d, eps), torch.nn.LayerNorm(d, eps)
        self.attention = torch.nn.ModuleDict(dict(q=torch.nn.Linear(d, d), k=torch.nn.Linear(d, d, bias=False),
                                                  v=torch.nn.Linear(d, d)))
        self.feed_forward = torch.nn.ModuleDict(dict(input=torch.nn.Linear(d, d_ff), output=torch.nn.Linear(d_ff, d)))

    def forward(self, x, mask):
        normed = self.attention_norm(x)
        source, base = (normed, x) if self.branches else (x, normed)
        split = lambda t: t.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        q, k, v = (split(self.attention[name](t)) for name, t in [("q", normed), ("k", source), ("v", source)])
        x = base + F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
        normed = self.feed_forward_norm(x)
        branch = self.feed_forward["output"](F.relu(self.feed_forward["input"](normed)))
        return (x if self.branches else normed) + branch


class SasRec(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
        d = config["d_model"]
        self.item_embedding = torch.nn.Embedding(config["items"], d)
        self.position_embedding = torch.nn.Embedding(config["max_len"], d)
        self.blocks = torch.nn.ModuleList(Block(config) for _ in range(config["num_layers"]))
        self.final_norm = torch.nn.LayerNorm(d, config["layer_norm_epsilon"])
        self.max_len, self.scale = config["max_len"], d**0.5

    def forward(self, sequences):
        """Scores of all items at every place of the sequences padded at the front, (rows, max_len, items)."""
        ids = torch.tensor([[0] * (self.max_len - len(s)) + s for s in sequences])
        real = torch.tensor([[False] * (self.max_len - len(s)) + [True] * len(s) for s in sequences])
        x = self.item_embedding(ids) * self.scale + self.position_embedding.weight
        causal = torch.ones(self.max_len, self.max_len, dtype=torch.bool).tril()
        # Padding sees itself, for a softmax over nothing has no value; nobody sees padding.
        mask = (causal & real[:, None, :]) | torch.eye(self.max_len, dtype=torch.bool)
        for block in self.blocks:
            x = block(x, mask[:, None])
        return self.final_norm(x) @ self.item_embedding.weight.T


def main(out):
    for seed, (name, shape) in enumerate(SHAPES.items()):
        generator = torch.Generator().manual_seed(seed)
        config = dict(model_type="sasrec", format_version=1, items=ITEMS, max_len=MAX_LEN, dropout_rate=0.5,
                      layer_norm_epsilon=1e-8, loss={"type": "full_cross_entropy", "label_smoothing": 0.0}) | shape
        model = SasRec(config).eval()
        with torch.no_grad():
            for parameter, weight in sorted(model.named_parameters()):
                noise = torch.randn(weight.shape, generator=generator)
                if "norm.weight" in parameter:
                    weight.copy_(1 + 0.3 * noise)
                elif parameter.endswith("bias"):
                    weight.copy_(0.3 * noise)
                elif "embedding" in parameter:
                    weight.copy_(0.5 * noise)
                else:
                    weight.copy_(noise / weight.shape[1] ** 0.5)
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
        save_file({key: value.detach().clone() for key, value in model.named_parameters()}, folder / "model.safetensors")

        sequences = [torch.randint(ITEMS, (length,), generator=generator).tolist() for length in LENGTHS]
        seen = [sequence[-MAX_LEN - 1:] for sequence in sequences if len(sequence) > 1]
        scores = model([sequence[:-1] for sequence in seen])
        rows = torch.cat([scores[i, MAX_LEN + 1 - len(sequence):] for i, sequence in enumerate(seen)])
        labels = torch.tensor([item for sequence in seen for item in sequence[1:]])
        loss = F.cross_entropy(rows, labels, label_smoothing=config["loss"]["label_smoothing"])
        loss.backward()
        tensors = {f"gradient.{key}": value.grad.clone() for key, value in model.named_parameters()}
        with torch.no_grad():
            tensors["scores"] = model([sequence[-MAX_LEN:] for sequence in sequences])[:, -1].contiguous()
        save_file(tensors, folder / "expected.safetensors")
        (folder / "cases.json").write_text(json.dumps({"sequences": sequences, "loss": loss.item()}) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
