#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes tests/data/blocks.txt: blocks of GGUF's types with random bits, and what the Python package gguf makes of them.

    python3 -m pip install gguf
    python3 tests/data/make_blocks.py

A type takes three lines: its name, the bytes of its blocks in hexadecimal, the values. Products of a scale and an
integer are exact in float32, so a minimum's subtraction is the one rounding, and every right reader agrees exactly.
"""
import pathlib

import gguf
import numpy as np

BLOCKS = {  # the number of blocks, and where in a block the f16 scales and minima are
    "Q5_0": (4, [0]), "Q5_1": (4, [0, 2]), "Q4_K": (2, [0, 2]), "Q5_K": (2, [0, 2]), "Q6_K": (2, [208])}


def main():
    random = np.random.default_rng(1)
    out = pathlib.Path(__file__).resolve().parent / "blocks.txt"
    with out.open("w") as file:
        for name, (count, scales) in BLOCKS.items():
            kind = gguf.GGMLQuantizationType[name]
            data = random.integers(0, 256, (count, gguf.GGML_QUANT_SIZES[kind][1]), dtype=np.uint8)
            for at in scales:
                data[:, at:at + 2] = random.normal(0, 0.1, (count, 1)).astype(np.float16).view(np.uint8)
            values = gguf.dequantize(data, kind).ravel()
            print(name.lower(), data.tobytes().hex(), " ".join(f"{v:.9g}" for v in values), sep="\n", file=file)


main()
