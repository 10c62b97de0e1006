# SPDX-License-Identifier: Apache-2.0
"""PyTorch on the CPU as a peer: a plain decoder of the given sizes in bf16 (the one that GPUs are compared with), eager.
Reads one JSON line per run from standard input ({"what": "prefill" or "decode", "tokens": N, "context": N}) and answers
with one ({"seconds": S}); the first line that it writes says what it is."""
import argparse
import json
import os
import sys
import time

sys.dont_write_bytecode = True
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "gpu", "device"))
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from peer_torch import Decoder  # noqa: E402


class CpuDecoder(Decoder):
    @staticmethod
    def attend(q, k, v, causal):
        """A decode step's heads that share keys become the rows of one: on a CPU ten times as fast as enable_gqa."""
        if causal:
            return Decoder.attend(q, k, v, causal)
        return F.scaled_dot_product_attention(q.reshape(q.shape[0], k.shape[1], -1, q.shape[-1]), k, v).view(q.shape)


def run(model, what, tokens, context):
    """Seconds of a prompt of `tokens`, or of as many decode steps that each read a cache of `context`."""
    ids = torch.randint(0, model.vocab, (1, tokens) if what == "prefill" else (1,))
    if what == "decode":
        model.make_cache(1, context)
        model.step(ids, model.block)
    start = time.perf_counter()
    if what == "prefill":
        model.prompt(ids)
    else:
        for _ in range(tokens):
            ids = model.step(ids, model.block)
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("sizes", type=int, nargs=7, help="hidden layers heads KV-heads head-size FFN vocabulary")
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with torch.inference_mode():
        model = CpuDecoder(arguments.sizes, torch.device("cpu"))
        run(model, "prefill", 512, 0)
        print(json.dumps({"version": torch.__version__, "isa": torch.backends.cpu.get_cpu_capability()}), flush=True)
        for line in sys.stdin:
            print(json.dumps({"seconds": run(model, **json.loads(line))}), flush=True)


if __name__ == "__main__":
    main()
