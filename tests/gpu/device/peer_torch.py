# SPDX-License-Identifier: Apache-2.0
"""What PyTorch attains on the same card, for the same shapes: matrix products, attention, decode steps and prompts.

Decode is a dense decoder with a static cache, its blocks compiled (torch.compile, fullgraph) at batches 1 and 256 and
captured as one CUDA graph, greedy token included; its context is the mean of the run that it stands beside, without the cost of a cache
that is longer than what is read. Weights are random. Best-effort, but nothing is tuned to lose: products are cuBLAS's,
attention is scaled_dot_product_attention. Writes the JSON file anew after each row, so that a cut keeps what there is.
"""
import argparse
import json
import os
import time

import torch
import torch.nn.functional as F

SHAPES = {  # hidden, layers, heads, KV heads, head size, FFN, vocabulary
    "llama-3.2-1b": (2048, 16, 32, 8, 64, 8192, 128256),
    "llama-3.1-8b": (4096, 32, 32, 8, 128, 14336, 128256),
    "small": (64, 2, 4, 2, 16, 96, 171),
}


class Peer:
    def __init__(self, arguments):
        self.out, self.device = arguments.out, torch.device(arguments.device)
        self.end = time.monotonic() + arguments.seconds
        self.cuda = self.device.type == "cuda"
        self.rows, self.failures = [], []
        if self.cuda:
            torch.cuda.set_device(self.device)

    def write(self):
        versions = {"torch": torch.__version__, "cuda": torch.version.cuda,
                    "device": torch.cuda.get_device_name() if self.cuda else "cpu"}
        with open(self.out + ".part", "w", encoding="utf-8") as file:
            json.dump({**versions, "rows": self.rows, "failures": self.failures}, file, indent=1)
        os.replace(self.out + ".part", self.out)

    def row(self, kind, measure, **facts):
        """Adds what measure() returns (a dict) as a row; a failure is a row of its own, and time that is over, too."""
        name = " ".join([kind] + [f"{k}={v}" for k, v in facts.items()])
        if time.monotonic() > self.end:
            self.failures.append(name + ": not run, the time is over")
        else:
            try:
                self.rows.append({"kind": kind, **facts, **measure()})
                print(name, self.rows[-1], flush=True)
            except Exception as error:  # whatever it is, the next row may work
                self.failures.append(f"{name}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
                print(self.failures[-1], flush=True)
        self.write()
        if self.cuda:
            torch.cuda.empty_cache()

    def synchronize(self):
        if self.cuda:
            torch.cuda.synchronize()

    def captured(self, function):
        """function() as one CUDA graph; on a CPU the function itself."""
        if not self.cuda:
            function()
            return function
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                function()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            function()
        return graph.replay

    def seconds_per_call(self, function, seconds=0.3, batch=8):
        """The median, each of `batch` calls in a row, so that what a launch costs the host is hidden."""
        function()
        self.synchronize()
        times, start = [], time.monotonic()
        while time.monotonic() - start < seconds or len(times) < 5:
            if self.cuda:
                begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
                begin.record()
                for _ in range(batch):
                    function()
                end.record()
                end.synchronize()
                times.append(begin.elapsed_time(end) * 1e-3 / batch)
            else:
                begin = time.monotonic()
                for _ in range(batch):
                    function()
                times.append((time.monotonic() - begin) / batch)
        return sorted(times)[len(times) // 2]

    # ---- single operations

    def copies(self, *shape):
        """Enough tensors of the shape that a cache does not serve one from its last use."""
        n = max(1, min(16, (512 << 20) // (2 * shape[0] * shape[1]))) if self.cuda else 1
        return [torch.randn(*shape, device=self.device, dtype=torch.bfloat16) for _ in range(n)]

    def product(self, m, n, k):
        x = torch.randn(m, k, device=self.device, dtype=torch.bfloat16)
        weights = self.copies(n, k)
        y = torch.empty(m, n, device=self.device, dtype=torch.bfloat16)

        def all_weights():
            for w in weights:
                torch.mm(x, w.t(), out=y)

        batch = max(1, 8 // len(weights))
        s = self.seconds_per_call(self.captured(all_weights), batch=batch) / len(weights)
        return {"seconds": s, "tflops": 2e-12 * m * n * k / s, "gb_per_s": 2e-9 * (n * k + m * k + m * n) / s}

    def attention(self, length, heads, kv_heads, dim):
        q = torch.randn(1, heads, length, dim, device=self.device, dtype=torch.bfloat16)
        k, v = (torch.randn(1, kv_heads, length, dim, device=self.device, dtype=torch.bfloat16) for _ in range(2))
        s = self.seconds_per_call(lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True))
        return {"seconds": s, "tflops": 4e-12 * heads * dim * length * (length + 1) / 2 / s}

    def decode_attention(self, batch, length, heads, kv_heads, dim):
        q = torch.randn(batch, heads, 1, dim, device=self.device, dtype=torch.bfloat16)
        k, v = (torch.randn(batch, kv_heads, length, dim, device=self.device, dtype=torch.bfloat16) for _ in range(2))
        step = self.captured(lambda: F.scaled_dot_product_attention(q, k, v, enable_gqa=True))
        s = self.seconds_per_call(step)
        return {"seconds": s, "gb_per_s": 4e-9 * batch * length * kv_heads * dim / s}

    # ---- models

    def decoder(self, name):
        return Decoder(SHAPES[name], self.device)

    def decode(self, model, batch, context):
        model.make_cache(batch, context)
        tokens = torch.zeros(batch, dtype=torch.long, device=self.device)
        with torch.no_grad():
            step, how = None, "compiled blocks in one CUDA graph"
            if self.cuda and batch in (1, 256):  # compiling takes its time; the others get the graph alone
                try:
                    block = torch.compile(model.block, fullgraph=True, dynamic=False)
                    step = self.captured(lambda: tokens.copy_(model.step(tokens, block)))
                except Exception as error:
                    print("not compiled:", str(error).splitlines()[0], flush=True)
            if step is None:
                step, how = self.captured(lambda: tokens.copy_(model.step(tokens, model.block))), "one CUDA graph"
            s = self.seconds_per_call(step, seconds=0.8)
        return {"context": context, "how": how if self.cuda else "eager", "step_ms": s * 1e3, "tps": batch / s}

    def prefill(self, model, length):
        tokens = torch.zeros(1, length, dtype=torch.long, device=self.device)
        with torch.no_grad():
            s = self.seconds_per_call(lambda: model.prompt(tokens), seconds=1, batch=1)
        return {"seconds": s, "tps": length / s}


class Decoder:
    """A Llama: norm, fused qkv, rotary positions, attention, projection, norm, fused gate and up, down."""

    def __init__(self, shape, device):
        self.hidden, self.layers, self.heads, self.kv_heads, self.dim, self.ffn, self.vocab = shape
        self.device = device

        def weight(rows, cols):
            return torch.empty(rows, cols, device=device, dtype=torch.bfloat16).normal_(0, cols**-0.5)

        rows = (self.heads + 2 * self.kv_heads) * self.dim
        self.blocks = [(weight(rows, self.hidden), weight(self.hidden, self.heads * self.dim),
                        weight(2 * self.ffn, self.hidden), weight(self.hidden, self.ffn)) for _ in range(self.layers)]
        self.norm = torch.ones(self.hidden, device=device, dtype=torch.bfloat16)
        self.embedding, self.head = weight(self.vocab, self.hidden), weight(self.vocab, self.hidden)

    def rotation(self, positions):
        inverse = 500000.0 ** (-torch.arange(0, self.dim, 2, device=self.device, dtype=torch.float32) / self.dim)
        angle = positions.float()[:, None] * inverse[None, :]
        return angle.cos().to(torch.bfloat16), angle.sin().to(torch.bfloat16)

    def make_cache(self, batch, context):
        self.context = context
        self.cache = [[torch.randn(batch, self.kv_heads, context, self.dim, device=self.device, dtype=torch.bfloat16)
                       for _ in range(2)] for _ in range(self.layers)]
        self.cos, self.sin = self.rotation(torch.tensor([context - 1], device=self.device))

    def normed(self, x):
        return F.rms_norm(x, (self.hidden,), self.norm, 1e-5)

    @staticmethod
    def rotate(x, cos, sin):  # [batch, heads, tokens, dim]
        low, high = x.chunk(2, dim=-1)
        return torch.cat((low * cos - high * sin, high * cos + low * sin), dim=-1)

    @staticmethod
    def attend(q, k, v, causal):
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=True)

    def block(self, x, weights, cache):
        """x [batch, tokens, hidden]. With a cache: one token, written to the cache's last position."""
        qkv, out, gate_up, down = weights
        batch, tokens = x.shape[:2]
        q, k, v = (F.linear(self.normed(x), qkv).view(batch, tokens, -1, self.dim).transpose(1, 2)
                   .split((self.heads, self.kv_heads, self.kv_heads), dim=1))
        q, k = self.rotate(q, self.cos, self.sin), self.rotate(k, self.cos, self.sin)
        if cache is not None:
            cache[0][:, :, -1:].copy_(k)
            cache[1][:, :, -1:].copy_(v)
            k, v = cache
        a = self.attend(q, k, v, cache is None)
        x = x + F.linear(a.transpose(1, 2).reshape(batch, tokens, -1), out)
        gate, up = F.linear(self.normed(x), gate_up).chunk(2, dim=-1)
        return x + F.linear(F.silu(gate) * up, down)

    def step(self, tokens, block):
        x = F.embedding(tokens, self.embedding)[:, None]
        for weights, cache in zip(self.blocks, self.cache):
            x = block(x, weights, cache)
        return F.linear(self.normed(x[:, 0]), self.head).argmax(dim=-1)

    def prompt(self, tokens):
        self.cos, self.sin = self.rotation(torch.arange(tokens.shape[1], device=self.device))
        x = F.embedding(tokens, self.embedding)
        for weights in self.blocks:
            x = self.block(x, weights, None)
        return F.linear(self.normed(x[:, -1]), self.head).argmax(dim=-1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--seconds", type=float, default=80, help="no row is begun after these")
    parser.add_argument("--small", action="store_true", help="tiny shapes, to try the script")
    peer = Peer(parser.parse_args())
    if parser.parse_args().small:
        model = peer.decoder("small")
        peer.row("product", lambda: peer.product(8, 16, 32), m=8, n=16, k=32)
        peer.row("attention", lambda: peer.attention(64, 4, 2, 16), length=64, heads=4, dim=16)
        peer.row("decode", lambda: peer.decode(model, 1, 20), model="small", batch=1)
        peer.row("prefill", lambda: peer.prefill(model, 16), model="small", length=16)
        return
    # The most telling first: time may end.
    products = [(m, n, k) for m in (512, 2048, 8192) for n, k in ((28672, 4096), (6144, 4096), (4096, 4096), (4096, 14336))]
    products += [(8192, 8192, 8192)]
    vectors = [(m, n, k) for m in (1, 8) for n, k in ((28672, 4096), (6144, 4096), (4096, 14336))]
    vectors += [(1, 16384, 2048), (1, 3072, 2048), (1, 128256, 4096)]
    for m, n, k in products:
        peer.row("product", lambda: peer.product(m, n, k), m=m, n=n, k=k)
    for length in (4096, 8192):
        peer.row("attention", lambda: peer.attention(length, 32, 8, 128), length=length, heads=32, dim=128)
    for name, batches in (("llama-3.1-8b", (1, 256, 64, 8, 32, 128)), ("llama-3.2-1b", (1, 256, 64, 8, 32, 128))):
        model = peer.decoder(name)
        if name == "llama-3.1-8b":
            peer.row("prefill", lambda: peer.prefill(model, 8192), model=name, length=8192)
        for batch in batches:
            context = 128 + (256 if batch == 1 else 128) // 2  # the mean of the runs that this stands beside
            peer.row("decode", lambda: peer.decode(model, batch, context), model=name, batch=batch)
        model = None
    for m, n, k in vectors:
        peer.row("product", lambda: peer.product(m, n, k), m=m, n=n, k=k)
    for batch, length, dim in ((8, 4096, 128), (1, 32768, 128), (8, 8192, 64)):
        peer.row("decode attention", lambda: peer.decode_attention(batch, length, 32, 8, dim), batch=batch,
                 length=length, dim=dim)


if __name__ == "__main__":
    main()
