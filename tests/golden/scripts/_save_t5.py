"""Saves random models by `save_pretrained` of `transformers`, for genrec to load.

    python _save_t5.py ROOT

Each folder of ROOT then holds what `save_pretrained` writes and logits.json, `{"sources": [[..]], "labels": [[..]], "logits":
[[[..]]]}`; `GENREC_T5_IMPORT=ROOT cargo test -p genrec-model --test t5 import` reads them.
"""

import json
import sys
from pathlib import Path

import torch
from transformers import T5Config, T5ForConditionalGeneration

VOCAB = 3027
SHAPES = {
    "paper": dict(d_model=128, d_kv=64, d_ff=1024, num_layers=4, num_decoder_layers=4, num_heads=6),
    "cpu": dict(d_model=128, d_kv=32, d_ff=512, num_layers=2, num_decoder_layers=2, num_heads=4),
    "gated": dict(d_model=64, d_kv=16, d_ff=96, num_layers=2, num_decoder_layers=1, num_heads=3, feed_forward_proj="gated-gelu"),
}


def main(root):
    generator = torch.Generator().manual_seed(0)
    draw = lambda count: torch.randint(2, VOCAB, (count,), generator=generator).tolist()
    for seed, (name, shape) in enumerate(SHAPES.items()):
        torch.manual_seed(seed)
        model = T5ForConditionalGeneration(T5Config(vocab_size=VOCAB, decoder_start_token_id=0, **shape)).eval()
        folder = root / name
        model.save_pretrained(folder)
        sources, labels = [draw(length) for length in [1, 5, 81, 40]], [draw(4) for _ in range(4)]
        width = max(map(len, sources))
        ids = torch.tensor([source + [0] * (width - len(source)) for source in sources])
        mask = torch.tensor([[1] * len(source) + [0] * (width - len(source)) for source in sources])
        with torch.no_grad():
            logits = model(input_ids=ids, attention_mask=mask, labels=torch.tensor(labels)).logits
        case = {"sources": sources, "labels": labels, "logits": logits.tolist()}
        (folder / "logits.json").write_text(json.dumps(case))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
