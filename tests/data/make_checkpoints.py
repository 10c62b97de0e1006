#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes tests/data/checkpoints: tiny random models and what Hugging Face transformers computes with them.

    python3 -m pip install torch transformers gguf safetensors
    python3 tests/data/make_checkpoints.py

Beside each checkpoint lies NAME.golden.json: a sequence of ids with the log-probability of each after the first
(float32 model, float64 log-softmax), and a greedy continuation whose best two logits are never close, so that a right
implementation in float32 cannot differ. For GGUF files the oracle is the same model with the dequantised weights.
The weights are scaled so that a mistake anywhere (a mask off by one, rope of the wrong kind, a bias left out) moves
the log-probabilities by far more than the tests' tolerance.
"""
import json
import pathlib
import shutil
import tempfile

import gguf
import numpy as np
import torch
from transformers import (AutoConfig, AutoModelForCausalLM, Gemma3TextConfig, LlamaConfig, MistralConfig, Qwen2Config,
                          Qwen3Config)

OUT = pathlib.Path(__file__).resolve().parent / "checkpoints"
SEQUENCE, PROMPT, GREEDY = 60, 10, 24
MIN_GAP = 0.02       # between the best two logits at every greedy step
MIN_DISTINCT = 10    # tokens in the greedy continuation: a model that repeats itself tests little

BASE = dict(vocab_size=171, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=4, head_dim=8, max_position_embeddings=128, bos_token_id=1, eos_token_id=2,
            pad_token_id=None, rms_norm_eps=1e-3, tie_word_embeddings=False)
THETA = {"rope_type": "default", "rope_theta": 10000.0}


def norm_offset(config):
    """What Gemma's norms add to their weights. GGUF files hold the sum."""
    return 1 if config.model_type == "gemma3_text" else 0


def random_weights(config, seed):
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
    # A tied embedding is small, or the model would only repeat its input; the last norm makes up for it.
    # Gemma multiplies it by the root of the width.
    tied = config.tie_word_embeddings
    offset = norm_offset(config)
    size, last_norm = (0.03, 12) if offset else (0.15, 3) if tied else (0.5, 1)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith("norm.weight"):
                heads = 2 if offset and ("q_norm" in name or "k_norm" in name) else 1  # or attention is flat
                p.copy_((last_norm if name == "model.norm.weight" else heads) * (1 + 0.3 * torch.randn_like(p)) - offset)
            elif name.endswith("bias"):
                p.copy_(0.3 * torch.randn_like(p))
            elif "embed_tokens" in name or "lm_head" in name:
                p.copy_(size * torch.randn_like(p))
            else:  # unit gain; q and k a little above, so that attention is not flat
                gain = 1.6 if "q_proj" in name or "k_proj" in name else 1.0
                p.copy_(gain * p.shape[1] ** -0.5 * torch.randn_like(p))
    return model


def golden(model, seed):
    """What the model computes, or None if a greedy step was too close to call."""
    vocab = model.config.vocab_size
    ids = torch.randint(3, vocab, (1, SEQUENCE), generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        logits = model(ids).logits[0].double()
        sequence, gaps = ids[:, :PROMPT], []
        for _ in range(GREEDY):
            best = model(sequence).logits[0, -1].double().topk(2)
            gaps.append(float(best.values[0] - best.values[1]))
            sequence = torch.cat([sequence, best.indices[:1][None]], 1)
    greedy = sequence[0, PROMPT:].tolist()
    if min(gaps) < MIN_GAP or len(set(greedy)) < MIN_DISTINCT or 2 in greedy:
        return None
    logprobs = logits.log_softmax(-1)[:-1].gather(1, ids[0, 1:, None])[:, 0]
    return {"ids": ids[0].tolist(), "logprobs": [round(x, 6) for x in logprobs.tolist()], "prompt": ids[0, :PROMPT].tolist(),
            "greedy": greedy, "smallest_gap": round(min(gaps), 4)}


def write_golden(name, model_path, values):
    text = json.dumps({"model": model_path, **values})
    (OUT / f"{name}.golden.json").write_text(text.replace(', "', ',\n "') + "\n")


def old_keys(path, drop=(), **more):
    """Rewrites config.json as transformers 4 wrote it: rope_theta and rope_scaling, torch_dtype."""
    file = path / "config.json"
    config = json.loads(file.read_text())
    rope = config.pop("rope_parameters")
    if "full_attention" in rope:
        config["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        rope = rope["full_attention"]
    config["rope_theta"] = rope.pop("rope_theta")
    config["rope_scaling"] = None if rope["rope_type"] == "default" else rope
    config["torch_dtype"] = config.pop("dtype")
    for key in drop:
        del config[key]
    config.update(more)
    file.write_text(json.dumps(config, indent=2) + "\n")


def load(path):
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager").eval()


def hugging_face(name, config, dtype, old=None, shard=None):
    """One folder; `old`: arguments of old_keys, None leaves the new keys."""
    path = OUT / name
    for seed in range(100):
        shutil.rmtree(path, ignore_errors=True)
        model = random_weights(config, seed).to(dtype)
        model.save_pretrained(path, **({"max_shard_size": shard} if shard else {}))
        (path / "generation_config.json").unlink(missing_ok=True)
        if old is not None:
            before = golden(load(path), seed)
            old_keys(path, **old)
            assert golden(load(path), seed) == before, f"{name}: transformers reads the old keys otherwise"
        values = golden(load(path), seed)
        if values:
            write_golden(name, name, values)
            return print(name, "seed", seed, "gap", values["smallest_gap"])
    raise SystemExit(f"{name}: no seed with clear greedy steps")


def permute(w, heads):
    """Rows of q and k from halves (Hugging Face) to pairs (GGUF's llama), as llama.cpp's converter does."""
    return w.reshape(heads, 2, w.shape[0] // heads // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def unpermute(w, heads):
    return w.reshape(heads, w.shape[0] // heads // 2, 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def gguf_file(name, config, matrices, embedding=None):
    """One GGUF file: matrices in that type, the embedding and output possibly in another, vectors in F32."""
    arch = config.model_type.removesuffix("_text")
    embedding = embedding or matrices
    names = gguf.get_tensor_name_map(getattr(gguf.MODEL_ARCH, arch.upper()), config.num_hidden_layers)
    path = OUT / f"{name}.gguf"
    for seed in range(100):
        model = random_weights(config, seed)
        writer = gguf.GGUFWriter(path, arch)
        writer.add_name(name)
        writer.add_vocab_size(config.vocab_size)
        writer.add_context_length(config.max_position_embeddings)
        writer.add_embedding_length(config.hidden_size)
        writer.add_block_count(config.num_hidden_layers)
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_head_count(config.num_attention_heads)
        writer.add_head_count_kv(config.num_key_value_heads)
        if config.head_dim * config.num_attention_heads != config.hidden_size:
            writer.add_key_length(config.head_dim)
            writer.add_value_length(config.head_dim)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        rope = config.rope_parameters.get("full_attention", config.rope_parameters)
        writer.add_rope_freq_base(rope["rope_theta"])
        if arch == "gemma3":
            writer.add_sliding_window(config.sliding_window)
        if arch == "llama":
            writer.add_rope_dimension_count(config.head_dim)
        if rope["rope_type"] == "llama3":  # GGUF has the factors, not the parameters
            default = rope["rope_theta"] ** (-torch.arange(0, config.head_dim, 2) / config.head_dim)
            factors = (default / model.model.rotary_emb.inv_freq).float().numpy()
            writer.add_tensor("rope_freqs.weight", factors)
        state = model.state_dict()
        for key, value in state.items():
            if key == "lm_head.weight" and config.tie_word_embeddings:
                continue
            offset = norm_offset(config) if key.endswith("norm.weight") else 0
            array = value.numpy() + offset
            kind = gguf.GGMLQuantizationType.F32
            if array.ndim == 2:
                kind = embedding if "embed_tokens" in key or "lm_head" in key else matrices
            heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(key.split(".")[-2], 0)
            pairs = arch == "llama" and heads
            if pairs:
                array = permute(array, heads)
            data = gguf.quantize(array, kind)
            writer.add_tensor(names.get_name(key, (".weight", ".bias")), data, raw_dtype=kind)
            back = gguf.dequantize(data, kind).reshape(array.shape)
            value.copy_(torch.from_numpy(np.ascontiguousarray(unpermute(back, heads) if pairs else back)) - offset)
        values = golden(model, seed)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        if values:
            write_golden(name, path.name, values)
            return print(path.name, "seed", seed, "gap", values["smallest_gap"])
    raise SystemExit(f"{name}: no seed with clear greedy steps")


def main():
    f32, f16, bf16 = torch.float32, torch.float16, torch.bfloat16
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    llama3 = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
              "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
    gqa = dict(num_key_value_heads=2)

    hugging_face("llama-mha", LlamaConfig(**BASE, rope_parameters=THETA), f32, old={"drop": ["head_dim"]})
    hugging_face("llama3-gqa-tied", LlamaConfig(**{**BASE, **gqa, "hidden_size": 48, "num_attention_heads": 6, "head_dim": 16,
                 "tie_word_embeddings": True}, rope_parameters=llama3), bf16, old={})
    hugging_face("llama-bias", LlamaConfig(**{**BASE, **gqa}, rope_parameters=THETA, attention_bias=True, mlp_bias=True), f32)
    hugging_face("llama-linear", LlamaConfig(**{**BASE, **gqa},
                 rope_parameters={"rope_type": "linear", "rope_theta": 1000.0, "factor": 4.0}), bf16)
    hugging_face("llama-yarn", LlamaConfig(**{**BASE, "head_dim": 16, "num_key_value_heads": 1}, rope_parameters={
                 "rope_type": "yarn", "rope_theta": 500.0, "factor": 4.0, "original_max_position_embeddings": 32}), bf16, old={})
    hugging_face("smollm2-sharded", LlamaConfig(**{**BASE, "hidden_size": 48, "num_attention_heads": 3, "head_dim": 16,
                 "num_key_value_heads": 1, "tie_word_embeddings": True},
                 rope_parameters={**THETA, "rope_theta": 100000.0}), bf16, old={"drop": ["head_dim"]}, shard="24KB")
    hugging_face("mistral-window", MistralConfig(**{**BASE, **gqa, "num_hidden_layers": 3}, sliding_window=16,
                 rope_parameters=THETA), f16, old={"head_dim": None})
    million = {**THETA, "rope_theta": 1000000.0}
    # As the released Qwen2.5 configurations do: a window is named and switched off.
    hugging_face("qwen2-tied", Qwen2Config(**{**BASE, **gqa, "tie_word_embeddings": True}, rope_parameters=million), bf16,
                 old={"drop": ["head_dim", "layer_types"], "sliding_window": 8, "max_window_layers": 1, "use_sliding_window": False})
    window = dict(use_sliding_window=True, sliding_window=12, max_window_layers=1)
    hugging_face("qwen2-window", Qwen2Config(**{**BASE, "num_hidden_layers": 3}, **window, rope_parameters=million), bf16)
    hugging_face("qwen2-window-old-keys", Qwen2Config(**{**BASE, **gqa, "num_hidden_layers": 3}, **window,
                 rope_parameters=million), f16, old={"drop": ["head_dim", "layer_types"]})
    hugging_face("qwen3", Qwen3Config(**{**BASE, **gqa, "head_dim": 24, "rms_norm_eps": 3e-4}, rope_parameters=million), bf16)
    hugging_face("qwen3-tied", Qwen3Config(**{**BASE, "num_key_value_heads": 1, "head_dim": 16, "tie_word_embeddings": True},
                 rope_parameters=million), bf16, old={"drop": ["layer_types"]})

    gemma = {**BASE, **gqa, "tie_word_embeddings": True, "num_hidden_layers": 4, "sliding_window": 16,
             "query_pre_attn_scalar": 12, "rms_norm_eps": 1e-6}
    def local(scaling, theta=100.0):
        return {"full_attention": {**scaling, "rope_theta": 10000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": theta}}
    pattern = ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"]
    hugging_face("gemma3", Gemma3TextConfig(**gemma, layer_types=pattern, rope_parameters=local({"rope_type": "default"})), bf16)
    hugging_face("gemma3-old-keys", Gemma3TextConfig(**{**gemma, "head_dim": 16, "num_key_value_heads": 1}, layer_types=pattern,
                 rope_parameters=local({"rope_type": "linear", "factor": 8.0})), f16,
                 old={"drop": ["layer_types"], "sliding_window_pattern": 3})

    kinds = gguf.GGMLQuantizationType
    small = {**BASE, **gqa, "intermediate_size": 64, "head_dim": 16}
    for kind in (kinds.F32, kinds.F16, kinds.Q8_0, kinds.Q4_0):
        gguf_file(f"gguf-llama-{kind.name.lower()}", LlamaConfig(**small, rope_parameters=THETA), kind)
    gguf_file("gguf-llama-q4_1", LlamaConfig(**{**small, "tie_word_embeddings": True}, rope_parameters=THETA), kinds.Q4_1, kinds.Q8_0)
    gguf_file("gguf-llama3-rope-freqs", LlamaConfig(**{**small, "tie_word_embeddings": True}, rope_parameters=llama3), kinds.F16)
    gguf_file("gguf-qwen2-q8_0", Qwen2Config(**{**small, "head_dim": 8}, rope_parameters=million), kinds.Q8_0)
    gguf_file("gguf-qwen3-q4_0", Qwen3Config(**small, rope_parameters=million), kinds.Q4_0, kinds.F16)
    gguf_file("gguf-gemma3-q5_0", Gemma3TextConfig(**{**gemma, "num_hidden_layers": 7, "intermediate_size": 64, "head_dim": 16,
              "query_pre_attn_scalar": 16}, rope_parameters=local({"rope_type": "default"}, 10000.0)), kinds.Q5_0, kinds.Q5_1)
    print(sum(f.stat().st_size for f in OUT.rglob("*") if f.is_file()), "bytes")


main()
