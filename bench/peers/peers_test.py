# SPDX-License-Identifier: Apache-2.0
"""What ./dev peers makes of others' output, without the others: recorded output, small scripts in their place."""
import json
import os
import struct
import sys
import tempfile
import types
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import make_gguf  # noqa: E402
import page  # noqa: E402
import peers  # noqa: E402
import programs  # noqa: E402

LLAMA_BENCH = """[
  {
    "build_commit": "0c1e570", "build_number": 1, "cpu_info": "AMD EPYC", "model_type": "llama ?B Q4_0", "n_threads": 1,
    "type_k": "f16", "type_v": "f16", "flash_attn": -1, "repack": true,
    "n_prompt": 16, "n_gen": 0, "n_depth": 8, "test_time": "2026-11-26T03:29:46Z", "avg_ns": 171113, "stddev_ns": 21876,
    "avg_ts": 94275.105371, "stddev_ts": 12048.571200, "samples_ns": [ 186577, 155650 ], "samples_ts": [ 85755.5, 102795 ]
  },
  { "n_prompt": 0, "n_gen": 4, "n_depth": 8, "samples_ns": [ 640000000 ], "samples_ts": [ 100.0 ] }
]"""
BATCHED_BENCH = """{"n_kv_max": 512, "n_batch": 2048, "n_ubatch": 512, "flash_attn": 1, "is_pp_shared": 0, "n_gpu_layers": -1, \
"n_threads": 1, "n_threads_batch": 1, "pp": 4, "tg": 4, "pl": 2, "n_kv": 16, "t_pp": 0.000413, "speed_pp": 19370.460938, \
"t_tg": 0.000189, "speed_tg": 42328.042969, "t": 0.000602, "speed": 26578.074219}

"""
# Says what `assay bench --paced` says; decode is at 100, 110, ... With "fail" in an argument it ends
# before the first trial, with "crash" in that one, with "late" in the second.
ASSAY = """#!/bin/sh
case "$*" in *fail*) echo "assay: no such model" >&2; exit 2;; esac
echo "ready for trial 1" >&2
trials= n=0
while read -r line; do
  case "$* $n" in *crash* | *late*1) echo "assay: device lost" >&2; exit 2;; esac
  trials="$trials${trials:+, }{\\"prefill_tps\\": 1000, \\"decode_tps\\": $((100 + 10 * n))}"
  n=$((n + 1))
  echo "ready for trial $((n + 1))" >&2
done
echo "{\\"trials\\": [$trials], \\"limits\\": {\\"mfu\\": 0.5, \\"mbu\\": 0.75, \\"decode_mfu\\": 0.25, \\"flops\\": 4e11, \\
\\"flops_dtype\\": \\"q4_1\\", \\"bytes_per_s\\": 5e10, \\"bytes_per_s_median\\": 4e10}, \\
\\"tool\\": {\\"version\\": \\"0\\", \\"commit\\": \\"abc\\", \\"build\\": \\"GNU\\"}, \\
\\"host\\": {\\"cpu\\": \\"A CPU\\", \\"cores\\": 2, \\"memory_bytes\\": 8589934592, \\"os\\": \\"Debian\\", \\"kernel\\": \\"Linux\\"}, \\
\\"device\\": {\\"isa\\": \\"AVX2\\"}, \\"environment\\": {\\"virtualization\\": null}}"
exit 130
"""
LLAMA = """#!/bin/sh
case "$*" in
*-d*) echo '[{"n_prompt": 0, "n_gen": 64, "n_depth": 512, "samples_ts": [50]}]';;
*) BROKEN echo '[{"n_prompt": 512, "n_gen": 0, "n_depth": 0, "samples_ts": [2000]}]';;
esac
"""


class Statistics(unittest.TestCase):
    def test_ratio_is_that_of_pairs(self):
        # The machine becomes slower and slower for both: the ratio does not move, and neither does its interval.
        self.assertEqual(page.paired_ratio([(200, 100), (100, 50), (20, 10)]), (2, 2, 2))
        self.assertEqual(page.paired_ratio([(200, 100), (100, 40), (20, 10)])[0], 2, "that of the medians is 2.5")

    def test_interval_contains_the_median_and_little_more_than_the_ratios(self):
        middle, low, high = page.paired_ratio([(v, 10) for v in (9, 10, 11, 12, 13)])
        self.assertEqual(middle, 1.1)
        self.assertTrue(0.9 <= low < middle < high <= 1.3)
        self.assertEqual(page.paired_ratio([(1, 2)]), (0.5, 0.5, 0.5))
        self.assertIsNone(page.paired_ratio([]))


class Parsing(unittest.TestCase):
    def test_llama_bench(self):
        self.assertEqual(page.llama_bench_tps(LLAMA_BENCH, 16, 0, 8), (85755.5 + 102795) / 2)
        self.assertEqual(page.llama_bench_tps(LLAMA_BENCH, 0, 4, 8), 100)
        with self.assertRaisesRegex(ValueError, "no test of 0 . 4 tokens at depth 0"):
            page.llama_bench_tps(LLAMA_BENCH, 0, 4, 0)

    def test_batched_bench(self):
        self.assertEqual(page.batched_bench_tps(BATCHED_BENCH, 2), {"prefill": 19370.460938, "decode": 42328.042969})
        with self.assertRaisesRegex(ValueError, "no batch of 32"):
            page.batched_bench_tps(BATCHED_BENCH, 32)


class Files(unittest.TestCase):
    def test_random_model_has_every_tensor_where_it_says(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "tiny.gguf")
            make_gguf.write(path, "tiny", "q4_0")
            with open(path, "rb") as file:
                data = file.read()
            self.assertEqual(os.listdir(folder), ["tiny.gguf"])
        listed = list(make_gguf.tensors(make_gguf.SHAPES["tiny"], "q4_0"))
        head = make_gguf.header("tiny", "q4_0", listed)
        magic, version, tensors, _ = struct.unpack("<4sIQQ", data[:24])
        self.assertEqual((magic, version, tensors), (b"GGUF", 3, 2 + 2 * 9))
        sizes = [make_gguf.tensor_bytes(dims, kind) for _, dims, kind in listed]
        self.assertEqual(len(data), len(head) + sum(sizes))
        self.assertIn(struct.pack("<IQ", make_gguf.F32, sum(sizes[:-1])), head[-48:], "where the last tensor is")
        self.assertEqual(data[len(head) + 96 * 64 // 32 * 34:][:4], struct.pack("<f", 1), "the first norm's weight")


class WholeRun(unittest.TestCase):
    def measure(self, broken="", dtype="q4_1"):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        for name, text in (("assay", ASSAY), ("llama-bench", LLAMA.replace("BROKEN", broken))):
            path = os.path.join(folder.name, name)
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
            os.chmod(path, 0o755)
        old = programs.llama
        programs.llama = lambda variant: folder.name
        self.addCleanup(setattr, programs, "llama", old)
        run = peers.Run(types.SimpleNamespace(assay=os.path.join(folder.name, "assay"), model=f"a-{dtype}.gguf", pairs=3,
                                              quick=False, rows="smol", out=os.path.join(folder.name, "out")))
        run.measure(peers.Row("smollm2-135m", dtype, "speed"))
        text = run.write_all()
        with open(os.path.join(folder.name, "out", "measurements.json"), encoding="utf-8") as file:
            self.assertEqual(json.load(file)["rows"], run.rows)
        return text

    def test_table(self):
        text = self.measure()
        self.assertIn("| SmolLM2 135M, q4_1 | prefill 512 | llama.cpp | 1000 | 2000 | 0.50 (0.50 to 0.50) | 3 | 50 % of FLOP/s |", text)
        self.assertIn("| SmolLM2 135M, q4_1 | decode 64 after 512 | llama.cpp | 110 | 50 | 2.20 (2.00 to 2.40) | 3 | "
                      "75 % of B/s (94 % of its median) |", text)
        self.assertIn("read at 50.0 GB/s (assay's probe, the best of all processes), in the median repetition of the median process "
                      "at 40.0 GB/s", text)
        self.assertIn("400 GFLOP/s (q4_1)", text)
        self.assertIn("`./dev peers --pairs 3 --rows 'smol'`", text)
        self.assertNotIn("Not measured", text)

    def test_a_peer_that_fails_is_named_and_the_other_figures_stay(self):
        text = self.measure(broken="echo out of memory >&2; exit 3;")
        self.assertIn("| SmolLM2 135M, q4_1 | prefill 512 | llama.cpp | 1000 | failed |  | 0 | 50 % of FLOP/s |", text)
        self.assertIn("- smollm2-135m q4_1 speed: llama.cpp: llama-bench ended with 3: out of memory", text)

    def test_assay_fails(self):
        text = self.measure(dtype="fail")
        self.assertIn("| failed | 2000 |  | 0 |  |", text)
        self.assertIn("assay: assay ended with 2: assay: no such model", text)

    def test_a_peer_that_prints_nonsense(self):
        for printed, error in (("hm", "JSONDecodeError"), ("[{}]", "KeyError"), ("[]", "printed no test of 512")):
            text = self.measure(broken=f"echo '{printed}'; exit 0;")
            self.assertRegex(text, "- smollm2-135m q4_1 speed: llama.cpp: llama-bench printed something unexpected: .*" + error)

    def test_assay_ends_in_the_middle(self):
        for dtype in ("crash", "late"):
            text = self.measure(dtype=dtype)
            self.assertIn("| failed | 2000 |  | 0 |  |", text)
            self.assertIn("assay: assay ended with 2: assay: device lost", text)

    def test_bandwidth_is_of_processes_with_all_threads(self):
        def row(threads, median):
            limits = {"bytes_per_s": 5e10, "bytes_per_s_median": median, "flops": None, "flops_dtype": "q8_0"}
            return {"threads": threads, "cores": 2, "isa": "", "result": {"limits": limits}}
        rows = [row(2, 3e10), row(1, 1e10), row(2, None), row(2, 4e10)]
        self.assertEqual(page.known(rows, "bytes_per_s_median"), [3e10, 4e10])
        self.assertIsNone(page.best(rows, "flops"))

    def test_rows_have_names_of_their_own(self):
        names = [row.name for row in peers.all_rows(True)]
        self.assertEqual(len(names), len(set(names)))


if __name__ == "__main__":
    programs.say = peers.say = lambda text: None  # progress is for people
    unittest.main()
