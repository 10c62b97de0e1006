# SPDX-License-Identifier: Apache-2.0
"""One Markdown table of a run of run-gpu.sh: what failed first, then every target beside what was measured.

usage: table.py OUT_DIR > table.md       also writes OUT_DIR/conform.json, the merged report of all operations
"""
import glob
import json
import math
import os
import re
import sys

# Of the model that stands for a size class: FFN width, vocabulary and the like are not needed here.
LAYERS = {"llama-3.2-1b": (16, 128256), "qwen3-0.6b": (28, 151936)}
GOLDEN_TOLERANCE = 1e-3  # as the golden tests of the CPU: f32 throughout
NOT_RUN = "not run"


def load(path):
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError):
        return None


def number(value, digits=3):
    if value is None:
        return ""
    if value == 0:
        return "0"
    places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{places}f}"


def percent(share):
    return "" if share is None else f"{100 * share:.1f} %"


class Run:
    """Everything under the folder, by what it is."""

    def __init__(self, folder):
        self.folder = folder
        self.machine = self.text("facts/machine.txt")
        self.problems = [line.split("\t", 1) for line in self.text("problems.txt").splitlines()]
        self.conform = self.merged()
        self.results = [r for r in map(load, sorted(glob.glob(f"{folder}/bench/*.json"))) if r and r["trials"]]
        parts = [k for k in map(load, sorted(glob.glob(f"{folder}/kernels/*.json"))) if k]
        self.kernels = {"kernels": [c for part in parts for c in part["kernels"]],
                        "bytes_per_s": max((part["bytes_per_s"] for part in parts), default=None)} if parts else {}
        self.peer = load(f"{folder}/peer/peer.json") or {}

    def text(self, name):
        try:
            with open(f"{self.folder}/{name}", encoding="utf-8", errors="replace") as file:
                return file.read()
        except OSError:
            return ""

    def merged(self):
        parts = [p for p in map(load, sorted(glob.glob(f"{self.folder}/conform/*.json"))) if p]
        if not parts:
            return None
        cases = sorted((c for p in parts for c in p["cases"]), key=lambda c: c["op"])
        count = {s: sum(c["status"] == s for c in cases) for s in ("passed", "failed", "skipped")}
        merged = {"schema": "assay.conform/1", "device": parts[0]["device"], "reference": parts[0]["reference"],
                  "seed": self.text("conform/seed").strip(), **count, "cases": cases}
        with open(f"{self.folder}/conform.json", "w", encoding="utf-8") as file:
            json.dump(merged, file, indent=1)
        return merged

    # ---- what the rows ask for

    def result(self, model, dtype, batch, isl, osl):
        """The newest result of that workload."""
        found = [r for r in self.results
                 if r["model"]["name"] == model and r["model"]["dtype"] == dtype
                 and (r["workload"]["concurrency"], r["workload"]["isl"], r["workload"]["osl"]) == (batch, isl, osl)]
        return found[-1] if found else None

    def claimed(self, metric):
        """A claim of the datasheet, as the results hold it."""
        for r in reversed(self.results):
            for gap in (r.get("gap") or {}).get("gaps", []):
                if gap["metric"] == metric:
                    return gap["claimed"]
        return None

    def read_bandwidth(self):
        """The best measured in this run; bytes per second."""
        measured = [self.kernels.get("bytes_per_s")] + [r["limits"].get("bytes_per_s") for r in self.results]
        return max((m for m in measured if m), default=None)

    def peak_bf16(self):
        """The best product in bf16 that was measured in this run, ours or the peer's; FLOP/s."""
        ours = [1e9 * c["gflop_per_s"] for c in self.cases("linear", w="bf16") if c["gflop_per_s"]]
        peers = [1e12 * p["tflops"] for p in self.peers("product")]
        limits = [r["limits"].get("flops") for r in self.results if r["limits"].get("flops_dtype") == "bf16"]
        return max((v for v in ours + peers + limits if v), default=None)

    def cases(self, op, **values):
        """Timed cases of an operation, with their keys."""
        found = []
        for kernel in self.kernels.get("kernels", []):
            words = kernel["case"].split()
            keys = dict(word.split("=", 1) for word in words[1:])
            if words[0] == op and all(keys.get(k) == v for k, v in values.items()):
                found.append({**kernel, "keys": keys})
        return found

    def peers(self, kind, **values):
        return [r for r in self.peer.get("rows", [])
                if r["kind"] == kind and all(r.get(k) == v for k, v in values.items())]


# ---- targets

# Each function returns (ours, judged value, peer, share of the ceiling of this run), or None where nothing was measured.
# The judged value is held against floor and stretch.


def decode_row(model, dtype):
    def row(run):
        r, claimed = run.result(model, dtype, 1, 128, 256), run.claimed("bytes_per_s")
        if not r or not r["limits"].get("decode_bytes_per_s"):
            return None
        rate, read = r["limits"]["decode_bytes_per_s"], run.read_bandwidth()
        peer = run.peers("decode", model=model, batch=1) if dtype == "bf16" else []
        tps = r["metrics"]["decode_tps"]["value"]
        ours = f"{number(tps, 4)} tok/s"
        if claimed:
            ours += f", {percent(rate / claimed)}"
        return (ours, rate / claimed if claimed else None,
                f"{number(peer[0]['tps'], 4)} tok/s ({number(tps / peer[0]['tps'])}x)" if peer else "",
                f"{percent(rate / read)} of read" if read else "")
    return row


# The batch is as large as 80 GB allow beside weights and cache of 2176 positions each.
def throughput_row(run):
    r = run.result("llama-3.1-8b", "bf16", 208, 128, 2048)
    if not r or not r["metrics"]["output_tps"]:
        return None
    tps, read = r["metrics"]["output_tps"]["value"], run.read_bandwidth()
    rate = r["limits"].get("decode_bytes_per_s")
    return (f"{number(tps, 4)} tok/s, batch 208", tps, "",
            f"decode {percent(rate / read)} of read" if rate and read else "")


def prefill_row(run):
    r, peak = run.result("llama-3.1-8b", "bf16", 1, 8192, 1), run.peak_bf16()
    if not r or not peak or not r["limits"].get("prefill_flops_per_s"):
        return None
    share, peer = r["limits"]["prefill_flops_per_s"] / peak, run.peers("prefill", model="llama-3.1-8b", length=8192)
    tps = r["metrics"]["prefill_tps"]["value"]
    return (f"{number(tps, 4)} tok/s, {percent(share)}", share,
            f"{number(peer[0]['tps'], 4)} tok/s ({number(tps / peer[0]['tps'])}x)" if peer else "",
            f"{percent(share)} of {number(peak * 1e-12)} TFLOP/s")


def gemv_row(run):
    read = run.read_bandwidth()
    shapes = [c for c in run.cases("linear", dtype="bf16") if int(c["keys"]["m"]) <= 8 and c["keys"].get("perf") == "2"]
    if not shapes or not read:
        return None
    worst = min(shapes, key=lambda c: c["gb_per_s"])
    share, k = 1e9 * worst["gb_per_s"] / read, worst["keys"]
    peer = run.peers("product", m=int(k["m"]), n=int(k["n"]), k=int(k["k"])) if k["w"] == "bf16" else []
    return (f"{number(worst['gb_per_s'], 4)} GB/s, {percent(share)}: the worst of {len(shapes)}, "
            f"m={k['m']} n={k['n']} k={k['k']} {k['w']}", share,
            f"{number(peer[0]['gb_per_s'], 4)} GB/s" if peer else "", f"{percent(share)} of read")


def gemm_row(run):
    pairs = []
    for c in run.cases("linear", dtype="bf16", w="bf16"):
        m, n, k = (int(c["keys"][x]) for x in "mnk")
        if m >= 512 and c["gflop_per_s"]:
            pairs += [(c["gflop_per_s"] * 1e-3 / p["tflops"], c, p) for p in run.peers("product", m=m, n=n, k=k)]
    if not pairs:
        return None
    ratio, c, p = min(pairs, key=lambda pair: pair[0])
    peak, k = run.peak_bf16(), c["keys"]
    return (f"{number(c['gflop_per_s'] * 1e-3)} TFLOP/s: the worst of {len(pairs)}, m={k['m']} n={k['n']} k={k['k']}",
            ratio, f"{number(p['tflops'])} TFLOP/s ({number(ratio)}x)", f"{percent(c['gflop_per_s'] * 1e9 / peak)} of peak")


def lengths(case, key):
    return [int(x) for x in case["keys"][key].split(",")]


def prefill_attention_row(run):
    long = [c for c in run.cases("attn_paged", dim="128", dtype="bf16", kv="bf16")
            if min(lengths(c, "qlens")) >= 4096 and c["gflop_per_s"]]
    if not long:
        return None
    worst, peak = min(long, key=lambda c: c["gflop_per_s"]), run.peak_bf16()
    tflops = worst["gflop_per_s"] * 1e-3
    peer = run.peers("attention", length=lengths(worst, "qlens")[0], dim=128)
    return (f"{number(tflops)} TFLOP/s, {worst['keys']['qlens']} queries", tflops,
            f"{number(peer[0]['tflops'])} TFLOP/s ({number(tflops / peer[0]['tflops'])}x)" if peer else "",
            f"{percent(tflops * 1e12 / peak)} of peak" if peak else "")


def decode_attention_row(run):
    read = run.read_bandwidth()
    long = [c for c in run.cases("attn_paged", dtype="bf16", kv="bf16")
            if max(lengths(c, "qlens")) == 1 and min(lengths(c, "kvlens")) >= 4096
            and c["keys"].get("perf") == "2"]
    if not long or not read:
        return None
    worst = min(long, key=lambda c: c["gb_per_s"])
    share, kv = 1e9 * worst["gb_per_s"] / read, lengths(worst, "kvlens")
    peer = run.peers("decode attention", batch=len(kv), length=kv[0], dim=int(worst["keys"]["dim"]))
    return (f"{number(worst['gb_per_s'], 4)} GB/s, {percent(share)}: the worst of {len(long)}, batch {len(kv)} at {kv[0]}, "
            f"d{worst['keys']['dim']}", share,
            f"{number(peer[0]['gb_per_s'], 4)} GB/s" if peer else "", f"{percent(share)} of read")


def gap_row(model):
    def row(run):
        r = run.result(model, "bf16", 1, 128, 256)
        decode = r and (r.get("phases") or {}).get("decode")
        if not decode or not decode.get("kernels_s") or not decode.get("steps_s"):
            return None
        step, kernels = decode["steps_s"]["value"], decode["kernels_s"]["value"]
        gap = (step - kernels) / step
        ours = f"{percent(gap)} of {number(step * 1e3)} ms"
        if gap < 0:  # one event pair per operation costs more than the gaps of a graph
            ours += " (operations timed one by one took longer than the step)"
        return ours, gap, "", ""
    return row


# name, unit of floor and stretch, floor, stretch, whether less is better, row
TARGETS = [
    ("decode, 1B bf16, batch 1: share of datasheet bandwidth", "%", 0.78, 0.85, False, decode_row("llama-3.2-1b", "bf16")),
    ("decode, 8B bf16, batch 1: share of datasheet bandwidth", "%", 0.74, 0.85, False, decode_row("llama-3.1-8b", "bf16")),
    ("decode, 8B fp8, batch 1: share of datasheet bandwidth", "%", 0.70, 0.80, False, decode_row("llama-3.1-8b", "f8_b128")),
    ("decode, 8B int4 g128, batch 1: share of datasheet bandwidth", "%", 0.60, 0.75, False,
     decode_row("llama-3.1-8b", "i4_g128")),
    ("8B bf16, 128/2048, full batch; floor: TensorRT-LLM as published for an H100", "tok/s", 9894, 10883, False,
     throughput_row),
    ("prefill, 8B bf16, 8192 tokens: share of the best matrix product", "%", 0.60, 0.75, False, prefill_row),
    ("matrix-vector products, m <= 8: share of the read bandwidth", "%", 0.90, 0.95, False, gemv_row),
    ("matrix products of the models, m >= 512: share of PyTorch's", "%", 0.97, 1.00, False, gemm_row),
    ("prefill attention, d128 causal, >= 4k", "TFLOP/s", 550, 640, False, prefill_attention_row),
    ("paged decode attention, >= 4k: share of the read bandwidth", "%", 0.85, 0.92, False, decode_attention_row),
    ("device idle in a step of batch 1, 1B bf16", "%", 0.05, 0.02, True, gap_row("llama-3.2-1b")),
    ("device idle in a step of batch 1, 8B bf16", "%", 0.05, 0.02, True, gap_row("llama-3.1-8b")),
]


def verdict(value, floor, stretch, less):
    if value is None:
        return "unknown"
    reaches = (lambda bound: value <= bound) if less else (lambda bound: value >= bound)
    return "stretch" if reaches(stretch) else "floor" if reaches(floor) else "**below**"


def target_rows(run):
    for name, unit, floor, stretch, less, row in TARGETS:
        bound = (lambda v: f"{100 * v:.0f} %") if unit == "%" else (lambda v: f"{v} {unit}")
        least = "< " if less else ""
        measured = row(run)
        if measured is None:
            yield [name, least + bound(floor), least + bound(stretch), NOT_RUN, "", "", ""]
            continue
        ours, value, peer, ceiling = measured
        yield [name, least + bound(floor), least + bound(stretch), ours, verdict(value, floor, stretch, less), peer, ceiling]


# ---- failures


def tolerance(logprobs, layers, vocab, dtype):
    """As the accuracy guard of assay bench has it: 4 roundoffs, growing with the root of the products in a row, attention's
    by the bf16 of the KV cache, times the spread of the logits, which follows from the surprise of arbitrary tokens."""
    epsilon = {"bf16": 2**-8, "fp8": 2**-5, "int4": 2**-8}[dtype]
    spread = math.sqrt(max(1, 2 * (-sum(logprobs) / len(logprobs) - math.log(vocab))))
    return 4 * math.sqrt(epsilon**2 * (4 * layers + 1) + 2**-16 * 2 * layers) * spread


def largest_difference(a, b):
    errors = [abs(x - y) for x, y in zip(a, b)]
    return math.inf if len(a) != len(b) or any(math.isnan(e) for e in errors) else max(errors)


def parity_rows(run):
    """[what, tokens, largest difference, allowed, fine] of every pair of which both sides are there."""
    rows = []
    for path in sorted(glob.glob(f"{run.folder}/parity/*.golden.json")):
        name = os.path.basename(path)[: -len(".golden.json")]
        golden, score = load(path), load(f"{run.folder}/parity/{name}-f32.json")
        if golden and score:
            rows.append([f"{name} f32, beside Hugging Face", len(golden["logprobs"]),
                         largest_difference(score["logprobs"], golden["logprobs"]), GOLDEN_TOLERANCE])
        mine, cpu = (load(f"{run.folder}/parity/{name}-auto{end}.json") for end in ("", "-cpu"))
        if mine and cpu:
            rows.append([f"{name} as in the file, beside the CPU", len(cpu["logprobs"]),
                         largest_difference(mine["logprobs"], cpu["logprobs"]), tolerance(cpu["logprobs"], 3, 171, "bf16")])
    for shape, (layers, vocab) in LAYERS.items():
        for dtype in ("bf16", "fp8", "int4"):
            for host in ("cpu", "ref"):
                mine, other = (load(f"{run.folder}/parity/{shape}-{dtype}{end}.json") for end in ("", "-" + host))
                if mine and other:
                    rows.append([f"shape:{shape} {dtype}, beside {host}", len(other["logprobs"]),
                                 largest_difference(mine["logprobs"], other["logprobs"]),
                                 tolerance(other["logprobs"], layers, vocab, dtype)])
    return [row + [row[2] <= row[3]] for row in rows]


def sanitizer_findings(run):
    for path in sorted(glob.glob(f"{run.folder}/sanitize/*.txt")):
        text = run.text("sanitize/" + os.path.basename(path))
        summary = re.search(r"(?:ERROR|RACECHECK) SUMMARY: (\d+) (?:errors?|hazards?)", text)
        if summary and int(summary.group(1)) > 0:
            first = next((line.strip("= ") for line in text.splitlines()
                          if re.search(r"Invalid|hazard|Misaligned|Error:|Program hit", line)), "")
            yield f"{os.path.basename(path)[:-4]}: {summary.group(1)} findings, the first: {first}"


def failures(run):
    lines = []
    if run.conform is None:
        lines.append("conformance: " + NOT_RUN)
    else:
        failed = [c for c in run.conform["cases"] if c["status"] == "failed"]
        if failed:
            lines.append(f"conformance: {len(failed)} of {run.conform['passed'] + len(failed)} cases failed:")
        seen = {}
        for c in failed:  # the first two of an operation tell most
            seen[c["op"]] = seen.get(c["op"], 0) + 1
            if seen[c["op"]] <= 2:
                lines.append(f"`{c['case']}` ({c['where']}): {c['detail'].splitlines()[0]}")
        ran = {c["op"] for c in run.conform["cases"] if c["status"] != "skipped"}
        for op in sorted({c["op"] for c in run.conform["cases"]} - ran):
            lines.append(f"conformance of {op}: every case was skipped")
    for what, _, error, allowed, fine in parity_rows(run):
        if not fine:
            lines.append(f"log-probabilities of {what}: off by {number(error)}, allowed are {number(allowed)}")
    lines += list(sanitizer_findings(run))
    for r in run.results:
        if r["accuracy"]["verdict"] == "failed":
            lines.append(f"accuracy guard of {r['model']['name']} {r['model']['dtype']}")
    lines += [f"{stage}: {what}" for stage, what in run.problems]
    lines += [f"peer: {what}" for what in run.peer.get("failures", [])]
    return lines


# ---- the page


def markdown(head, rows):
    for row in [head, ["---"] * len(head), *rows]:
        yield "| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |"


def bench_rows(run):
    for r in run.results:
        m, w, l = r["metrics"], r["workload"], r["limits"]
        peer = (run.peers("decode", model=r["model"]["name"], batch=w["concurrency"]) if r["model"]["dtype"] == "bf16" else [])
        rate = lambda v: number(v["value"], 4) if v else ""  # noqa: E731
        power = r["power"]
        yield [r["model"]["name"], r["model"]["dtype"], w["concurrency"], f"{w['isl']}/{w['osl']}", rate(m["prefill_tps"]),
               rate(m["decode_tps"]), rate(m["output_tps"]), number(m["ttft_ms"]["p50"]) if m["ttft_ms"] else "",
               percent(l.get("mbu")), percent(l.get("mfu")), number(peer[0]["tps"], 4) if peer else "",
               f"{number(power['mean_w'])} W, {number(power['j_per_output_token'])} J/token, grade {power['grade']}"
               if power["grade"] != "none" else "",
               "" if r["status"] == "complete" else r["status"]]


def case_rows(run):
    read = run.read_bandwidth()
    for c in run.kernels.get("kernels", []):
        yield [c["case"], number(c["median_ns"] * 1e-3, 4), number(c["gb_per_s"], 4),
               percent(1e9 * c["gb_per_s"] / read) if read else "",
               number(c["gflop_per_s"] * 1e-3, 4) if c["gflop_per_s"] else ""]


def page(run):
    device = (run.conform or {}).get("device", {})
    tool = run.results[-1]["tool"] if run.results else {}
    yield f"# {device.get('name') or 'device unknown'}"
    yield ""
    yield f"assay {tool.get('version', '?')} commit {tool.get('commit', '?')}, device {device.get('id', '?')}; " + \
        "; ".join(run.machine.splitlines()[:2])
    yield ""
    yield "## Failures"
    yield ""
    wrong = failures(run)
    yield from [f"- {line}" for line in wrong] or ["none"]
    yield ""
    if run.conform:
        yield (f"Conformance: {run.conform['passed']} passed, {run.conform['failed']} failed, {run.conform['skipped']} "
               f"skipped (seed {run.conform['seed']}).")
    parity = parity_rows(run)
    if parity:
        worst = max(parity, key=lambda row: row[2] / row[3])
        yield (f"Log-probabilities: {sum(row[4] for row in parity)} of {len(parity)} comparisons fine; the nearest to its "
               f"bound: {worst[0]}, {number(worst[2])} of {number(worst[3])}.")
    yield ""
    yield "## Targets"
    yield ""
    yield from markdown(["target", "floor", "stretch", "measured", "reaches", "peer (PyTorch)", "of this run's ceiling"],
                        target_rows(run))
    read, peak, claimed = run.read_bandwidth(), run.peak_bf16(), run.claimed("bytes_per_s")
    yield ""
    yield (f"Ceilings: read {number(read * 1e-9, 4) if read else '?'} GB/s"
           f"{f' ({percent(read / claimed)} of the datasheet)' if read and claimed else ''}, best bf16 product "
           f"{number(peak * 1e-12, 4) if peak else '?'} TFLOP/s.")
    if run.results:
        yield ""
        yield "## Models"
        yield ""
        yield from markdown(["model", "dtype", "batch", "ISL/OSL", "prefill tok/s", "decode tok/s", "output tok/s",
                             "TTFT ms", "MBU", "MFU", "peer decode tok/s", "power", "note"], bench_rows(run))
    if run.kernels:
        yield ""
        yield "## Operations"
        yield ""
        yield from markdown(["case", "us", "GB/s", "of read", "TFLOP/s"], case_rows(run))
    if parity:
        yield ""
        yield "## Log-probabilities"
        yield ""
        yield from markdown(["model", "tokens", "largest difference", "allowed", ""],
                            [[*row[:2], number(row[2]), number(row[3]), "" if row[4] else "**off**"] for row in parity])


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    print("\n".join(page(Run(sys.argv[1]))))
