"""Loads model directories written by genrec with `transformers` and compares logits.

    python _load_t5.py ROOT [TOLERANCE]

Each folder of ROOT holds logits.json, `{"sources": [[..]], "labels": [[..]], "logits": [[[..]]]}`, and either config.json and
model.safetensors, as `GENREC_T5_EXPORT=ROOT cargo test -p genrec-model --test t5 export` writes them, or a whole export with
these in model/, as `GENREC_EXPORT=ROOT cargo test -p genrec-tests --test hub transformers` writes it; of that the model
card is read as the Hub reads it. Prints the largest absolute difference of each; exits 1 when there is none or one is above
the tolerance, 1e-4 by default.
"""

import json
import sys
from pathlib import Path

import torch
from transformers import T5ForConditionalGeneration


def difference(folder):
    case = json.loads((folder / "logits.json").read_text())
    place = {"subfolder": "model"} if (folder / "model").is_dir() else {}
    model, report = T5ForConditionalGeneration.from_pretrained(folder, output_loading_info=True, **place)
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


def check_card(folder):
    """The front matter of a model card, and its numbers beside those of the report."""
    from huggingface_hub import ModelCard

    card = ModelCard.load(folder / "README.md").data
    assert card.library_name == "genrec" and card.license and "semantic-ids" in card.tags, card.to_dict()
    found = {result.metric_type: result.metric_value for result in card.eval_results}
    assert found == json.loads((folder / "report.json").read_text())["test"], found


def main(root, tolerance):
    found = {}
    for folder in sorted(root.iterdir()):
        if folder.is_dir():
            found[folder.name] = difference(folder)
            if (folder / "README.md").exists():
                check_card(folder)
    for name, value in found.items():
        print(f"exported model {name}: largest difference of logits {value:.2e}")
    return 0 if found and all(value <= tolerance for value in found.values()) else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 1e-4))
