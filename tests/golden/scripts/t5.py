"""T5 by `transformers`: logits, position buckets and beam search of small random models.

    python t5.py OUT

writes, for every configuration, OUT/NAME/{config.json,model.safetensors} in Hugging Face's form, OUT/NAME/cases.json
with padded-away sources and targets, and OUT/NAME/logits.safetensors, the teacher-forced logits
(rows, targets, vocabulary); OUT/buckets.json; and for some configurations OUT/NAME/beams.json. See t5/README.md.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import T5Config, T5ForConditionalGeneration
from transformers.models.t5.modeling_t5 import T5Attention

VOCAB, LEVELS, CODES = 45, 4, 10
SHAPES = {
    "relu_tied": dict(d_model=16, d_kv=8, d_ff=24, num_layers=2, num_decoder_layers=2, num_heads=2),
    "gated_tied": dict(d_model=12, d_kv=8, d_ff=20, num_layers=1, num_decoder_layers=2, num_heads=3,
                       feed_forward_proj="gated-gelu", relative_attention_num_buckets=8,
                       relative_attention_max_distance=12),
    "relu_untied": dict(d_model=20, d_kv=4, d_ff=16, num_layers=3, num_decoder_layers=1, num_heads=4,
                        relative_attention_num_buckets=16, relative_attention_max_distance=40),
    "gated_untied": dict(d_model=16, d_kv=4, d_ff=32, num_layers=2, num_decoder_layers=2, num_heads=6,
                         feed_forward_proj="gated-gelu", layer_norm_epsilon=1e-5),
}
WITH_BEAMS = ["relu_tied", "gated_untied"]
LENGTHS = [1, 2, 7, 20, 13, 20, 4]


def write(path, value):
    path.write_text(json.dumps(value, indent=None, separators=(",", ":")) + "\n")


def random_model(shape, tied, generator):
    config = T5Config(vocab_size=VOCAB, decoder_start_token_id=0, tie_word_embeddings=tied, **shape)
    model = T5ForConditionalGeneration(config).eval()
    if not tied:
        # This version of transformers ties at construction whatever it is told; a file that holds both tables unties.
        model.lm_head.weight = torch.nn.Parameter(torch.empty(VOCAB, config.d_model))
    with torch.no_grad():
        for name, weight in sorted(model.named_parameters()):
            noise = torch.randn(weight.shape, generator=generator)
            if "layer_norm" in name:
                weight.copy_(1 + 0.3 * noise)
            elif "relative_attention_bias" in name:
                weight.copy_(noise)
            elif "shared" in name or "lm_head" in name:
                weight.copy_(noise * (1.0 if tied else 0.5))
            else:
                weight.copy_(noise * 1.2 / weight.shape[1] ** 0.5)
    return model


def save(model, tied, out):
    out.mkdir(parents=True, exist_ok=True)
    weights = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    if tied:
        weights.pop("lm_head.weight", None)
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    config = model.config.to_dict()
    config["tie_word_embeddings"] = tied
    config["architectures"] = ["T5ForConditionalGeneration"]
    (out / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    # What is recorded is the model as it comes back from the files.
    loaded = T5ForConditionalGeneration.from_pretrained(out).eval()
    for name, weight in weights.items():
        assert torch.equal(dict(loaded.named_parameters(remove_duplicate=False))[name], weight), name
    assert loaded.config.scale_decoder_outputs == tied
    return loaded


def padded(sources):
    width = max(map(len, sources))
    ids = torch.tensor([source + [0] * (width - len(source)) for source in sources])
    mask = torch.tensor([[1] * len(source) + [0] * (width - len(source)) for source in sources])
    return ids, mask


def trie(sequences):
    children = {}
    for sequence in sequences:
        for i in range(len(sequence)):
            children.setdefault(tuple(sequence[:i]), set()).add(sequence[i])
    return {prefix: sorted(tokens) for prefix, tokens in children.items()}


def beams(model, sources, valid):
    ids, mask = padded(sources)
    children = trie(valid)
    runs = []
    for variant in ["free", "constrained"]:
        for num_beams in [4, 10, 20]:
            allowed = None
            if variant == "constrained":
                allowed = lambda _row, prefix: children[tuple(prefix.tolist()[1:])]
            found = model.generate(
                input_ids=ids, attention_mask=mask, num_beams=num_beams, num_return_sequences=num_beams,
                do_sample=False, early_stopping=False, length_penalty=0.0, min_new_tokens=LEVELS,
                max_new_tokens=LEVELS, eos_token_id=None, pad_token_id=0, decoder_start_token_id=0,
                prefix_allowed_tokens_fn=allowed, return_dict_in_generate=True, output_scores=True)
            scores = found.sequences_scores.view(len(sources), num_beams)
            sequences = found.sequences.view(len(sources), num_beams, LEVELS + 1)[:, :, 1:]
            assert (scores > -1e8).all(), "a beam holds no hypothesis"
            if variant == "constrained":
                assert all(row in valid for user in sequences.tolist() for row in user)
            runs.append({"constrained": variant == "constrained", "num_beams": num_beams,
                         "sequences": sequences.tolist(),
                         "scores": [[round(score, 6) for score in user] for user in scores.tolist()]})
    return runs


def main(out):
    torch.manual_seed(0)
    for seed, (name, shape) in enumerate(SHAPES.items()):
        generator = torch.Generator().manual_seed(seed)
        tied = name.endswith("_tied")
        folder = out / name
        model = save(random_model(shape, tied, generator), tied, folder)
        draw = lambda low, high, count: torch.randint(low, high, (count,), generator=generator).tolist()
        sources = [draw(2, VOCAB, length) for length in LENGTHS]
        labels = [draw(2, VOCAB, LEVELS) for _ in sources]
        ids, mask = padded(sources)
        with torch.no_grad():
            logits = model(input_ids=ids, attention_mask=mask, labels=torch.tensor(labels))
        write(folder / "cases.json", {"sources": sources, "labels": labels, "loss": logits.loss.item()})
        save_file({"logits": logits.logits.contiguous()}, folder / "logits.safetensors")
        if name in WITH_BEAMS:
            # Level i has the tokens 5 + 10 i ..; the catalogue holds 120 of the 10^4 sequences.
            levels = torch.stack([torch.randint(CODES, (160,), generator=generator) + 5 + CODES * i
                                  for i in range(LEVELS)], dim=1).tolist()
            valid = sorted(set(map(tuple, levels)))[:120]
            valid = [list(sequence) for sequence in valid]
            write(folder / "beams.json", {"sources": sources, "valid": valid, "runs": beams(model, sources, valid)})

    tables = []
    for count, distance in [(32, 128), (8, 12), (16, 40), (64, 256)]:
        offsets = torch.arange(-300, 301)
        for bidirectional in [True, False]:
            table = T5Attention._relative_position_bucket(offsets, bidirectional, count, distance)
            tables.append({"num_buckets": count, "max_distance": distance, "bidirectional": bidirectional,
                           "first_offset": -300, "buckets": table.tolist()})
    write(out / "buckets.json", tables)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
