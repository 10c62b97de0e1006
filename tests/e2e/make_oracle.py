#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes smollm2_oracle.json and gemma3_oracle.json: what transformers computes with the dequantised float32 weights of
a GGUF file.

    python3 -m pip install torch transformers gguf
    python3 tests/e2e/make_oracle.py SmolLM2-135M-Instruct.Q4_1.gguf smollm2_oracle.json
    python3 tests/e2e/make_oracle.py gemma-3-270m-q4_k_m.gguf gemma3_oracle.json
"""
import hashlib
import json
import pathlib
import sys

import gguf
import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Gemma3ForCausalLM, Gemma3TextConfig

# Our own words, so that nobody else's text is committed.
TEXT = """A scale is only as honest as the hand that reads it. When the miners brought their ore down to the valley, the
assayer weighed each sample twice, melted it with lead in a small cup of bone ash, and waited while the fire took away
everything that was not silver or gold. What remained was a bead no larger than a grain of rice. He weighed the bead,
divided one number by the other, and wrote the result in a book that anyone could open. Some of the miners were angry,
because the merchants had promised them more. But the merchants had never melted anything. They had looked at the colour
of the stone and guessed, and a guess costs nothing until somebody pays for it. In the end the whole valley learned to
ask the same question before every sale: who measured this, with which instrument, and how large is the error?"""
PROMPT = "The three most important things to check before buying a used car are"
TOKENS, GREEDY = 150, 24


GEMMA_NAMES = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
    "post_attention_norm": "post_attention_layernorm", "ffn_norm": "pre_feedforward_layernorm", "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj", "post_ffw_norm": "post_feedforward_layernorm"}


def gemma_name(name):
    if name.startswith("blk."):
        _, layer, part, _ = name.split(".")
        return f"model.layers.{layer}.{GEMMA_NAMES[part]}.weight"
    return {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}[name]


def gemma3(reader):
    """transformers' own reader of GGUF needs a package more; what it leaves to defaults here is as published."""
    def of(key):
        return reader.fields["gemma3." + key].contents()
    state = {}
    for tensor in reader.tensors:
        value = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        state[gemma_name(tensor.name)] = torch.from_numpy(value - 1 if value.ndim == 1 else value)
    config = Gemma3TextConfig(
        vocab_size=len(state["model.embed_tokens.weight"]), hidden_size=of("embedding_length"),
        intermediate_size=of("feed_forward_length"), num_hidden_layers=of("block_count"),
        num_attention_heads=of("attention.head_count"), num_key_value_heads=of("attention.head_count_kv"),
        head_dim=of("attention.key_length"), query_pre_attn_scalar=of("attention.key_length"),
        rms_norm_eps=of("attention.layer_norm_rms_epsilon"), sliding_window=of("attention.sliding_window"),
        max_position_embeddings=of("context_length"), attn_implementation="eager", dtype=torch.float32)
    assert config.rope_parameters["full_attention"]["rope_theta"] == of("rope.freq_base")
    model = Gemma3ForCausalLM(config)
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert missing == ["lm_head.weight"] and not unexpected, (missing, unexpected)
    model.tie_weights()
    return model


def main():
    path = pathlib.Path(sys.argv[1])
    reader = gguf.GGUFReader(path)
    gemma = reader.fields["general.architecture"].contents() == "gemma3"
    if gemma:
        model = gemma3(reader).eval()
    else:
        model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    ids = tokenizer(TEXT, return_tensors="pt", add_special_tokens=gemma).input_ids[:, :TOKENS]
    assert ids.shape[1] == TOKENS, ids.shape
    prompt = tokenizer(PROMPT, return_tensors="pt", add_special_tokens=gemma).input_ids
    sequence, gaps = prompt, []
    with torch.no_grad():
        logits = model(ids).logits[0].double()
        for _ in range(GREEDY):
            best = model(sequence).logits[0, -1].double().topk(2)
            gaps.append(float(best.values[0] - best.values[1]))
            sequence = torch.cat([sequence, best.indices[:1][None]], 1)
    logprobs = logits.log_softmax(-1)[:-1].gather(1, ids[0, 1:, None])[:, 0]
    oracle = {
        "model_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "ids": ids[0].tolist(),
        "logprobs": [round(x, 5) for x in logprobs.tolist()],
        "mean_logprob": round(float(logprobs.mean()), 6),
        "prompt": prompt[0].tolist(),
        "prompt_text": PROMPT,
        "greedy": sequence[0, prompt.shape[1]:].tolist(),
        "greedy_text": tokenizer.decode(sequence[0, prompt.shape[1]:]),
        "smallest_gap": round(min(gaps), 4),
    }
    out = pathlib.Path(__file__).resolve().parent / sys.argv[2]
    out.write_text(json.dumps(oracle).replace(', "', ',\n "') + "\n")
    print({k: oracle[k] for k in ("mean_logprob", "greedy_text", "smallest_gap")})


main()
