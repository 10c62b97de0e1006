# SPDX-License-Identifier: Apache-2.0
"""The table of a run: every target is there, measured or "not run", judged by its bounds; failures stand first. With the
program as argument, the script itself is run, too, on the CPU and a few tiny models."""
import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
FOLDER = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(FOLDER)))
sys.path.insert(0, FOLDER)
import table  # noqa: E402

ASSAY = sys.argv.pop(1) if len(sys.argv) > 1 and os.access(sys.argv[1], os.X_OK) else None
CLAIMED = 3.35e12


def rate(value):
    return {"value": value, "ci_low": value, "ci_high": value, "n": 3}


def result(model, dtype, batch, isl, osl, **limits):
    """A result of assay bench, as far as the table reads it."""
    return {
        "status": "complete", "trials": [{}], "tool": {"version": "0.1.0", "commit": "abc"},
        "model": {"name": model, "dtype": dtype}, "workload": {"concurrency": batch, "isl": isl, "osl": osl},
        "metrics": {"prefill_tps": rate(9000), "decode_tps": rate(800), "output_tps": rate(10000), "ttft_ms": {"p50": 5.0}},
        "limits": {"bytes_per_s": 3.0e12, "flops": 5e14, "flops_dtype": "bf16", "mbu": 0.9, "mfu": None, **limits},
        "gap": {"gaps": [{"metric": "bytes_per_s", "claimed": CLAIMED}]},
        "phases": {"decode": {"steps_s": rate(1e-3), "kernels_s": rate(0.97e-3)}},
        "power": {"grade": "none"}, "accuracy": {"verdict": "not_run"},
    }


def kernel(case, gb_per_s, gflop_per_s=None):
    return {"case": case, "median_ns": 1e4, "gb_per_s": gb_per_s, "gflop_per_s": gflop_per_s}


class Table(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)

    def write(self, name, content):
        path = os.path.join(self.folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(content if isinstance(content, str) else json.dumps(content))

    def rows(self):
        return {row[0]: row for row in table.target_rows(table.Run(self.folder))}

    def row(self, start):
        return next(row for name, row in self.rows().items() if name.startswith(start))

    def test_nothing_was_run(self):
        rows = self.rows()
        self.assertEqual(len(rows), len(table.TARGETS))
        for row in rows.values():
            self.assertEqual(row[3:], ["not run", "", "", ""])
        text = "\n".join(table.page(table.Run(self.folder)))
        self.assertIn("- conformance: not run", text)

    def test_decode_is_judged_by_the_datasheet(self):
        for share, reaches in ((0.86, "stretch"), (0.80, "floor"), (0.70, "**below**")):
            self.write("bench/1.json", result("llama-3.2-1b", "bf16", 1, 128, 256, decode_bytes_per_s=share * CLAIMED))
            row = self.row("decode, 1B bf16")
            self.assertEqual(row[4], reaches)
            self.assertIn(f"{100 * share:.1f} %", row[3])
            self.assertEqual(row[6], f"{100 * share * CLAIMED / 3e12:.1f} % of read")
        self.assertEqual(self.row("decode, 8B bf16")[3], "not run")

    def test_peer_stands_beside_decode(self):
        self.write("bench/1.json", result("llama-3.2-1b", "bf16", 1, 128, 256, decode_bytes_per_s=2e12))
        self.write("peer/peer.json", {"rows": [{"kind": "decode", "model": "llama-3.2-1b", "batch": 1, "tps": 400}]})
        self.assertEqual(self.row("decode, 1B bf16")[5], "400.0 tok/s (2.00x)")

    def test_dtypes_are_told_apart(self):
        self.write("bench/1.json", result("llama-3.1-8b", "f8_b128", 1, 128, 256, decode_bytes_per_s=0.75 * CLAIMED))
        self.assertEqual(self.row("decode, 8B fp8")[4], "floor")
        self.assertEqual(self.row("decode, 8B int4")[3], "not run")

    def test_throughput_and_prefill(self):
        self.write("bench/1.json", result("llama-3.1-8b", "bf16", 208, 128, 2048))
        self.write("bench/2.json", result("llama-3.1-8b", "bf16", 1, 8192, 1, prefill_flops_per_s=4e14))
        self.assertEqual(self.row("8B bf16, 128/2048")[4], "floor")
        self.assertEqual(self.row("prefill, 8B")[4], "stretch")  # 80 % of the 500 TFLOP/s that were measured
        self.write("peer/peer.json", {"rows": [{"kind": "product", "m": 8192, "n": 8192, "k": 8192, "tflops": 700}]})
        self.assertEqual(self.row("prefill, 8B")[4], "**below**")  # 57 % of the peer's, which is the better ceiling

    def test_operations_take_the_worst_shape(self):
        self.write("kernels/targets.json", {"bytes_per_s": 3.0e12, "kernels": [
            kernel("linear dtype=bf16 k=4096 m=1 n=28672 perf=2 w=bf16", 2900, 100),
            kernel("linear dtype=bf16 k=4096 m=8 n=6144 perf=2 w=bf16", 2730, 100),
            kernel("linear dtype=bf16 k=4096 m=1 n=4096 perf=1 w=bf16", 100, 100),  # small: not a target
            kernel("linear dtype=bf16 k=4096 m=512 n=4096 perf=2 w=bf16", 10, 580e3),
            kernel("attn_paged dim=128 dtype=bf16 kv=bf16 kvlens=4096 perf=2 qlens=4096", 10, 600e3),
            kernel("attn_paged dim=128 dtype=bf16 kv=bf16 kvlens=8192 perf=2 qlens=8192", 10, 560e3),
            kernel("attn_paged dim=128 dtype=bf16 kv=bf16 kvlens=4096,4096 perf=2 qlens=1,1", 2800, 10)]})
        self.write("peer/peer.json", {"rows": [{"kind": "product", "m": 512, "n": 4096, "k": 4096, "tflops": 600}]})
        self.assertIn("91.0 %: the worst of 2, m=8 n=6144", self.row("matrix-vector")[3])
        self.assertEqual(self.row("matrix-vector")[4], "floor")
        self.assertEqual(self.row("matrix products")[4:6], ["**below**", "600 TFLOP/s (0.967x)"])
        self.assertIn("560 TFLOP/s, 8192 queries", self.row("prefill attention")[3])
        self.assertEqual(self.row("paged decode")[4], "stretch")

    def test_idle_share(self):
        self.write("bench/1.json", result("llama-3.1-8b", "bf16", 1, 128, 256))
        self.assertEqual(self.row("device idle in a step of batch 1, 8B")[3:5], ["3.0 % of 1.00 ms", "floor"])

    def test_failures_stand_first(self):
        case = {"op": "glu", "case": "glu tokens=1", "where": "glu.txt:3", "status": "failed", "detail": "y[0] is nan"}
        report = {"device": {"id": "cuda:0", "name": "H100", "backend": "cuda"}, "reference": "ref", "seed": 7}
        self.write("conform/glu.json", {**report, "cases": [case, {**case, "status": "passed"}]})
        self.write("conform/rope.json", {**report, "cases": [{"op": "rope", "case": "rope", "status": "skipped"}]})
        self.write("problems.txt", "bench\tllama: ended after its 5 s\n")
        self.write("sanitize/memcheck-linear.txt", "========= Invalid __global__ read of size 4 bytes\n"
                                                   "=========     at Gemv+0x10\n========= ERROR SUMMARY: 3 errors\n")
        self.write("sanitize/racecheck-rows.txt", "========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)\n")
        self.write("parity/m.golden.json", {"logprobs": [-1.0, -2.0]})
        self.write("parity/m-f32.json", {"logprobs": [-1.0, -2.5]})
        text = "\n".join(table.page(table.Run(self.folder)))
        wrong = text[text.index("## Failures"):text.index("## Targets")]
        self.assertIn("- conformance: 1 of 2 cases failed:", wrong)
        self.assertIn("`glu tokens=1` (glu.txt:3): y[0] is nan", wrong)
        self.assertIn("conformance of rope: every case was skipped", wrong)
        self.assertIn("memcheck-linear: 3 findings, the first: Invalid __global__ read of size 4 bytes", wrong)
        self.assertNotIn("racecheck-rows", wrong)
        self.assertIn("m f32, beside Hugging Face: off by 0.500", wrong)
        self.assertIn("- bench: llama: ended after its 5 s", wrong)
        with open(os.path.join(self.folder, "conform.json"), encoding="utf-8") as file:
            self.assertEqual(json.load(file)["failed"], 1)

    def test_a_damaged_answer_is_none(self):
        self.write("kernels/targets.json", "{\"kernels\": [")
        self.write("bench/1.json", "")
        self.assertEqual(self.row("matrix-vector")[3], "not run")


@unittest.skipUnless(ASSAY, "the program was not given")
class Script(unittest.TestCase):
    def test_runs_on_the_cpu(self):
        with tempfile.TemporaryDirectory() as bundle:
            os.symlink(ASSAY, f"{bundle}/assay")
            for file in ("run-gpu.sh", "table.py", "peer_torch.py"):
                shutil.copy(f"{FOLDER}/{file}", bundle)
            os.mkdir(f"{bundle}/checkpoints")
            for file in ("llama-mha", "qwen3", "gguf-llama-q4_0.gguf"):
                source = f"{ROOT}/tests/data/checkpoints/{file}"
                os.symlink(source, f"{bundle}/checkpoints/{file}")
                golden = file.removesuffix(".gguf") + ".golden.json"
                os.symlink(f"{ROOT}/tests/data/checkpoints/{golden}", f"{bundle}/checkpoints/{golden}")
            command = ["bash", f"{bundle}/run-gpu.sh", f"{bundle}/out", "--device", "cpu", "--small"]
            run = subprocess.run(command + ["--only", "facts,parity,bench"], capture_output=True, text=True)
            self.assertEqual(run.returncode, 0, run.stderr)
            self.assertIn("Log-probabilities: 3 of 3 comparisons fine", run.stdout)
            self.assertIn("- conformance: not run", run.stdout)
            self.assertRegex(run.stdout, r"\| bf16 \| 4 \| 16/8 \|")
            self.assertIn("done; problems: 0", run.stdout)

            run = subprocess.run(command[:3] + ["--device", "cuda:7"], capture_output=True, text=True)
            self.assertEqual(run.returncode, 2)
            self.assertIn("cuda:7 does not work", run.stderr)

            # Time that is over leaves a table and says what is missing; what is there stays.
            run = subprocess.run(command + ["--only", "conform", "--seconds", "2"], capture_output=True, text=True)
            self.assertIn("- conform: not run: no time is left", run.stdout)
            self.assertIn("Log-probabilities: 3 of 3 comparisons fine", run.stdout)


if __name__ == "__main__":
    unittest.main()
