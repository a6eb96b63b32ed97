"""Loads model directories written by genrec-model with `transformers` and compares logits.

    python _load_t5.py ROOT

Each folder of ROOT holds config.json, model.safetensors and logits.json, `{"sources": [[..]], "labels": [[..]],
"logits": [[[..]]]}`, as `GENREC_T5_EXPORT=ROOT cargo test -p genrec-model --test t5 export` writes them. Prints the
largest absolute difference of each; exits 1 when there is none or one is above 1e-4.
"""

import json
import sys
from pathlib import Path

import torch
from transformers import T5ForConditionalGeneration


def difference(folder):
    case = json.loads((folder / "logits.json").read_text())
    model, report = T5ForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    # A tied head is listed as missing by some versions of transformers.
    missing = set(report["missing_keys"]) - {"lm_head.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"}
    assert not missing and not report["unexpected_keys"] and not report["mismatched_keys"], report
    sources = case["sources"]
    width = max(map(len, sources))
    ids = torch.tensor([source + [0] * (width - len(source)) for source in sources])
    mask = torch.tensor([[1] * len(source) + [0] * (width - len(source)) for source in sources])
    with torch.no_grad():
        logits = model.eval()(input_ids=ids, attention_mask=mask, labels=torch.tensor(case["labels"])).logits
    return (logits - torch.tensor(case["logits"])).abs().max().item()


def main(root):
    found = {folder.name: difference(folder) for folder in sorted(root.iterdir()) if folder.is_dir()}
    for name, value in found.items():
        print(f"exported model {name}: largest difference of logits {value:.2e}")
    return 0 if found and all(value <= 1e-4 for value in found.values()) else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
