# SPDX-License-Identifier: Apache-2.0
"""GGUF files of published shapes with random weights, which assay and llama.cpp both read: there is no vocabulary in them
(tokenizer "none"), because speed needs token ids only. Written with the standard library alone.

Weights are cut from one pool of random values at an offset of their own, so that a gigabyte takes seconds; each stands in
memory of its own all the same. Embeddings (which are the head, too) are Q8_0 in files of four bits, as quantisers of such
models keep them finer than the rest.
"""
import array
import os
import random
import struct

# hidden, layers, heads, KV heads, head size, FFN, vocabulary, positions, rope base, norm epsilon, bias of q, k and v
SHAPES = {
    "qwen2.5-0.5b": ("qwen2", 896, 24, 14, 2, 64, 4864, 151936, 32768, 1e6, 1e-6, True),
    "llama-3.2-1b": ("llama", 2048, 16, 32, 8, 64, 8192, 128256, 131072, 5e5, 1e-5, False),
    "tiny": ("llama", 64, 2, 2, 1, 32, 128, 96, 256, 1e4, 1e-5, False),  # for the test
}
F32, Q4_0, Q8_0, BF16 = 0, 2, 8, 30  # ggml's numbers of types
TYPES = {"bf16": BF16, "q8_0": Q8_0, "q4_0": Q4_0}
FILE_TYPES = {"bf16": 32, "q8_0": 7, "q4_0": 2}  # general.file_type
BLOCKS = {F32: (1, 4), BF16: (1, 2), Q8_0: (32, 34), Q4_0: (32, 18)}  # values, bytes
ALIGNMENT = 32
POOL_VALUES = 1 << 20
DEVIATION = 0.02


def pool(kind):
    """Bytes of POOL_VALUES random weights with about the deviation of trained ones."""
    rng = random.Random(kind)
    if kind in (F32, BF16):
        values = array.array("f", (rng.gauss(0, DEVIATION) for _ in range(POOL_VALUES))).tobytes()
        if kind == F32:
            return values
        upper = bytearray(POOL_VALUES * 2)
        upper[0::2], upper[1::2] = values[2::4], values[3::4]
        return bytes(upper)
    # Uniform integers; a uniform distribution over 2 a has the deviation a / sqrt(3).
    largest, size = (127, 32) if kind == Q8_0 else (8, 16)
    scale = struct.pack("<e", DEVIATION * 3**0.5 / largest)
    return b"".join(scale + rng.randbytes(size) for _ in range(POOL_VALUES // 32))


def string(text):
    return struct.pack("<Q", len(text)) + text.encode()


def metadata(key, value):
    """A key with its value: str, bool, int (u32) or float (f32)."""
    for type_, code, form in ((str, 8, None), (bool, 7, "<?"), (int, 4, "<I"), (float, 6, "<f")):
        if isinstance(value, type_):
            return string(key) + struct.pack("<I", code) + (string(value) if form is None else struct.pack(form, value))
    raise TypeError(key)


def tensors(shape, kind):
    """(name, dimensions with the innermost first, type) of each tensor."""
    _, hidden, layers, heads, kv_heads, size, ffn, vocab, _, _, _, bias = shape
    weight = TYPES[kind]
    yield "token_embd.weight", (hidden, vocab), Q8_0 if kind == "q4_0" else weight
    yield "output_norm.weight", (hidden,), F32
    for layer in range(layers):
        at = f"blk.{layer}."
        for name, rows in (("attn_q", heads * size), ("attn_k", kv_heads * size), ("attn_v", kv_heads * size)):
            yield at + name + ".weight", (hidden, rows), weight
            if bias:
                yield at + name + ".bias", (rows,), F32
        yield at + "attn_output.weight", (heads * size, hidden), weight
        yield at + "ffn_gate.weight", (hidden, ffn), weight
        yield at + "ffn_up.weight", (hidden, ffn), weight
        yield at + "ffn_down.weight", (ffn, hidden), weight
        yield at + "attn_norm.weight", (hidden,), F32
        yield at + "ffn_norm.weight", (hidden,), F32


def header(name, kind, listed):
    arch, hidden, layers, heads, kv_heads, size, ffn, vocab, positions, base, epsilon, _ = SHAPES[name]
    keys = [("general.architecture", arch), ("general.name", f"{name} (random)"), ("general.file_type", FILE_TYPES[kind]),
            (f"{arch}.context_length", positions), (f"{arch}.embedding_length", hidden), (f"{arch}.block_count", layers),
            (f"{arch}.feed_forward_length", ffn), (f"{arch}.attention.head_count", heads),
            (f"{arch}.attention.head_count_kv", kv_heads), (f"{arch}.attention.key_length", size),
            (f"{arch}.attention.value_length", size), (f"{arch}.rope.dimension_count", size),
            (f"{arch}.rope.freq_base", base), (f"{arch}.attention.layer_norm_rms_epsilon", epsilon),
            (f"{arch}.vocab_size", vocab), ("tokenizer.ggml.model", "none")]
    text = b"GGUF" + struct.pack("<IQQ", 3, len(listed), len(keys)) + b"".join(metadata(*key) for key in keys)
    offset = 0
    for tensor, dims, type_ in listed:
        text += string(tensor) + struct.pack("<I", len(dims)) + struct.pack(f"<{len(dims)}Q", *dims)
        text += struct.pack("<IQ", type_, offset)
        offset += tensor_bytes(dims, type_)
    return text + bytes(-len(text) % ALIGNMENT)


def tensor_bytes(dims, type_):
    values, size = BLOCKS[type_]
    count = 1
    for dim in dims:
        count *= dim
    total = count // values * size
    assert total % ALIGNMENT == 0, dims  # so it is for every shape here, and there is nothing to pad
    return total


def write(path, name, kind):
    """Writes the file, whole or not at all."""
    listed = list(tensors(SHAPES[name], kind))
    rng, pools = random.Random(name), {type_: pool(type_) for type_ in {type_ for _, _, type_ in listed}}
    part = f"{path}.{os.getpid()}.part"
    try:
        with open(part, "wb") as file:
            file.write(header(name, kind, listed))
            for tensor, dims, type_ in listed:
                left, values = tensor_bytes(dims, type_), pools[type_]
                if "norm" in tensor:
                    values = struct.pack("<f", 1) * dims[0]
                unit = BLOCKS[type_][1]
                start = rng.randrange(len(values) // unit) * unit if "norm" not in tensor else 0
                while left:
                    piece = values[start:start + left]
                    file.write(piece)
                    left, start = left - len(piece), 0
        os.replace(part, path)
    finally:
        if os.path.exists(part):
            os.remove(part)
