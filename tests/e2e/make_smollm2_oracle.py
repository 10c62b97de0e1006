#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes smollm2_oracle.json: what transformers computes with the dequantised float32 weights of a GGUF file.

    python3 -m pip install torch transformers gguf
    python3 tests/e2e/make_smollm2_oracle.py SmolLM2-135M-Instruct.Q4_1.gguf
"""
import hashlib
import json
import pathlib
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

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


def main():
    path = pathlib.Path(sys.argv[1])
    model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    ids = tokenizer(TEXT, return_tensors="pt", add_special_tokens=False).input_ids[:, :TOKENS]
    assert ids.shape[1] == TOKENS, ids.shape
    prompt = tokenizer(PROMPT, return_tensors="pt", add_special_tokens=False).input_ids
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
        "greedy": sequence[0, prompt.shape[1]:].tolist(),
        "greedy_text": tokenizer.decode(sequence[0, prompt.shape[1]:]),
        "smallest_gap": round(min(gaps), 4),
    }
    out = pathlib.Path(__file__).resolve().parent / "smollm2_oracle.json"
    out.write_text(json.dumps(oracle).replace(', "', ',\n "') + "\n")
    print({k: oracle[k] for k in ("mean_logprob", "greedy_text", "smallest_gap")})


main()
