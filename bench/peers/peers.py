# SPDX-License-Identifier: Apache-2.0
"""assay beside llama.cpp and PyTorch on this machine's CPU, in one run and in turns; writes docs/peers.md.
Called by ./dev peers, which builds assay and finds the default model."""
import argparse
import dataclasses
import datetime
import json
import os
import re
import sys
import time

sys.dont_write_bytecode = True
import measure  # noqa: E402
import page  # noqa: E402
import programs  # noqa: E402
from programs import Failed, say  # noqa: E402

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CORES = len(os.sched_getaffinity(0))
NAMES = {"smollm2-135m": "SmolLM2 135M", "gemma-3-270m": "Gemma 3 270M", "qwen2.5-0.5b": "Qwen2.5 0.5B shape",
         "llama-3.2-1b": "Llama 3.2 1B shape"}
DEFAULT_PAIRS, QUICK_PAIRS = 5, 2
KINDS = ["speed", "load", "batch", "context"]  # the longest last: a run that is cut keeps what it has


@dataclasses.dataclass
class Row:
    model: str
    dtype: str
    kind: str  # speed: prompts and decode; batch, context: the same from llama-batched-bench; load
    isl: int = 512
    osl: int = 64
    batch: int = 1
    repeats: int = 1  # requests per trial, where one takes a fraction of a second
    threads: int = CORES
    isa: str = ""
    torch: bool = False
    named: bool = False  # takes long: not without --rows

    @property
    def name(self):
        parts = [self.model, self.dtype, self.kind]
        parts += [f"b{self.batch}"] if self.kind == "batch" else []
        parts += [f"t{self.threads}"] if self.threads != CORES else []
        return " ".join(parts + ([self.isa] if self.isa else []))

    @property
    def title(self):
        text = f"{NAMES[self.model]}, {self.dtype}"
        if self.threads != CORES:
            text += f", {self.threads} thread{'s' if self.threads > 1 else ''}"
        return text + (f", {self.isa} only" if self.isa else "")

    def measures(self):
        """(key, what it says) of each figure."""
        if self.kind == "load":
            return [("load", "file in the page cache to first token")]
        decode = f"decode {self.osl} after {self.isl}" + (f", batch {self.batch}" if self.batch > 1 else "")
        return [("decode", decode)] if self.kind == "batch" else [("prefill", f"prefill {self.isl}"), ("decode", decode)]


def all_rows(isa_rows):
    models = [("smollm2-135m", "q4_1", 64), ("gemma-3-270m", "q4_k_m", 64), ("qwen2.5-0.5b", "bf16", 32),
              ("qwen2.5-0.5b", "q8_0", 32), ("llama-3.2-1b", "bf16", 16), ("llama-3.2-1b", "q8_0", 16), ("llama-3.2-1b", "q4_0", 16)]
    rows = []
    for model, dtype, osl in models:
        rows.append(Row(model, dtype, "speed", repeats=3 if "smol" in model else 1, torch=dtype == "bf16"))
        rows += [Row(model, dtype, "batch", isl=16, osl=osl, batch=batch, named=not model.startswith(("smol", "qwen")))
                 for batch in (8, 32)]
    if CORES > 1:
        rows += [Row("smollm2-135m", "q4_1", "speed", repeats=2, threads=1), Row("qwen2.5-0.5b", "bf16", "speed", threads=1)]
    if isa_rows:
        rows += [Row(model, dtype, "speed", repeats=3 if "smol" in model else 1, isa="avx2")
                 for model, dtype in (("smollm2-135m", "q4_1"), ("qwen2.5-0.5b", "bf16"), ("qwen2.5-0.5b", "q8_0"))]
    rows += [Row("qwen2.5-0.5b", "bf16", "context", isl=8192, osl=16), Row("llama-3.2-1b", "bf16", "load")]
    return sorted(rows, key=lambda row: KINDS.index(row.kind))


class Run:
    def __init__(self, arguments):
        self.arguments = arguments
        self.pairs = arguments.pairs or (QUICK_PAIRS if arguments.quick else DEFAULT_PAIRS)
        self.out = os.path.join(arguments.out, "assay")
        self.rows, self.versions = [], {}
        self.start, self.load = time.monotonic(), os.getloadavg()[0]
        if self.load > 0.5:
            say(f"the machine is busy (load average {self.load:.1f}): the figures will say more of that than of the programs")
        os.makedirs(self.out, exist_ok=True)

    def file_of(self, row):
        if row.model == "smollm2-135m":
            if not self.arguments.model:
                raise Failed("the default model could not be fetched")
            return self.arguments.model
        return programs.gemma() if row.model.startswith("gemma") else programs.random_model(row.model, row.dtype)

    def starters(self, row, path):
        """{program: a function that starts it}, assay first."""
        def assay():
            if row.kind == "load":
                return measure.AssayLoad(self.arguments.assay, row, path, self.out)
            return measure.Assay(self.arguments.assay, row, path, self.out, self.pairs)

        def torch():
            peer = measure.Torch(programs.torch(), row)
            self.versions["PyTorch"] = f"{peer.about['version']} ({peer.about['isa']}), eager, static cache"
            return peer

        starters = {"assay": assay, "llama.cpp": lambda: measure.LlamaCpp(programs.llama(row.isa or "native"), row, path)}
        return {**starters, "PyTorch": torch} if row.torch else starters

    def measure(self, row):
        """One row: starts what is compared, then takes turns. What fails is left out of the further turns and named."""
        say(f"{row.name}, {self.pairs} pairs ({(time.monotonic() - self.start) / 60:.1f} min so far)")
        entry = {"name": row.name, "title": row.title, "unit": "s" if row.kind == "load" else "tok/s", "threads": row.threads,
                 "cores": CORES, "isa": row.isa, "failures": {}, "result": None}
        running, speeds = {}, {}

        def attempt(program, work):
            try:
                return work()
            except Failed as error:
                entry["failures"].setdefault(program, str(error))  # the first says why
                say(f"{row.name}: {program} failed: {error}")
                return None

        path = attempt("model", lambda: self.file_of(row))
        starters = self.starters(row, path) if path else {}
        for program, start in starters.items():
            running[program] = attempt(program, start)
            speeds[program] = []
        for _ in range(self.pairs):
            for program in starters:
                alive = running[program] and program not in entry["failures"]
                speeds[program].append(attempt(program, running[program].trial) if alive else None)
        for program, run in running.items():
            if hasattr(run, "finish"):
                result = attempt(program, run.finish)
                if program == "assay":
                    entry["result"] = result
                    trials = page.assay_trials(result) if result else []
                    speeds["assay"] = trials + [None] * (self.pairs - len(trials))
        entry["measures"] = [{"what": what, "phase": key, "batch": row.batch,
                              "assay": [s and s[key] for s in speeds.get("assay", [])],
                              "peers": {p: [s and s[key] for s in speeds[p]] for p in speeds if p != "assay"}}
                             for key, what in row.measures()]
        self.rows.append(entry)

    def write_all(self):
        """After each row, so that a run that is cut leaves what it has. Returns the page."""
        self.write("measurements.json", json.dumps({"facts": self.facts(), "rows": self.rows}, indent=1))
        text = page.page(self.rows, self.facts())
        self.write("peers.md", text)
        return text

    def write(self, name, text):
        path = os.path.join(self.arguments.out, name)
        with open(path + ".part", "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(path + ".part", path)

    def facts(self):
        assay = next((f"assay {r['result']['tool']['version']}, {r['result']['tool']['commit']}, {r['result']['tool']['build']}"
                      for r in self.rows if r["result"]), "assay")
        llama = f"llama.cpp as in {programs.LLAMA_PACKAGE} {programs.LLAMA_VERSION}, built natively with {programs.compiler()}"
        options = "".join(f" {o}" for o, given in (("--quick", self.arguments.quick), (f"--pairs {self.arguments.pairs}", self.arguments.pairs),
                                                   (f"--rows '{self.arguments.rows}'", self.arguments.rows)) if given)
        return {"date": datetime.date.today().isoformat(), "command": "./dev peers" + options,
                "minutes": (time.monotonic() - self.start) / 60,
                "versions": [assay, llama] + [f"{k} {v}" for k, v in self.versions.items()] +
                [f"load average when it began: {self.load:.1f}"],
                "notes": NOTES + (ISA_NOTES if any(r["isa"] for r in self.rows) else [])}


NOTES = [
    "How the figures come about:", "",
    "- assay: `assay bench --paced`, loaded and warm, a trial per pair; prefill is the prompt by the median time to the first",
    "  token, decode the batch by the median time per token after it. llama.cpp: `llama-bench` (prefill `-p 512 -n 0`, decode",
    "  `-n 64 -d 512`, with its warm-up run); for batches and 8192 tokens of context `llama-batched-bench`, flash attention on.",
    "- PyTorch: the decoder of `tests/gpu/device/peer_torch.py` in eager bf16 with a cache of fixed length, no compilation.",
    "- *shape*: random weights in the sizes of the published model, in a file that both programs read (`make_gguf.py`). The",
    "  embeddings, which are the head, too, are Q8_0 in the file of Q4_0.",
    "- load: the life of the whole process (`assay generate -n 1`; `llama-bench -p 1 -n 0 -r 1 --no-warmup`).",
    "- what llama.cpp's tools take to start and load between the turns is not in the other figures.",
]
ISA_NOTES = ["- *avx2 only*: `assay bench --isa avx2`, and a llama.cpp built for AVX2, FMA, F16C and BMI2 and nothing newer."]


def main():
    parser = argparse.ArgumentParser(prog="./dev peers", description=__doc__.splitlines()[0])
    parser.add_argument("--assay", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--model", help=argparse.SUPPRESS)
    parser.add_argument("--rows", metavar="REGEX", help="only rows whose name matches, of all that --list prints")
    parser.add_argument("--list", action="store_true", help="print the rows' names")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_PAIRS} pairs of each row")
    parser.add_argument("--pairs", type=int, help=f"pairs of each row ({DEFAULT_PAIRS})")
    parser.add_argument("--out", default=os.path.join(ROOT, "out", "peers"), help="folder of the measurements (out/peers)")
    arguments = parser.parse_args()
    if arguments.pairs is not None and arguments.pairs < 1:
        parser.error("--pairs: at least 1")
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        avx512 = "avx512f" in file.read()
    rows = [row for row in all_rows(avx512) if re.search(arguments.rows or "", row.name)]
    if arguments.list:
        print("\n".join(row.name + (" (only with --rows)" if row.named else "") for row in rows))
        return 0
    rows = [row for row in rows if arguments.rows or not row.named]
    if not rows:
        parser.error(f"--rows {arguments.rows}: no row matches; --list prints their names")
    os.makedirs(programs.CACHE, exist_ok=True)
    run = Run(arguments)
    for row in rows:
        run.measure(row)
        text = run.write_all()
    path = os.path.join(arguments.out, "peers.md")
    if not (arguments.quick or arguments.rows):
        path = os.path.join(ROOT, "docs", "peers.md")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    print(text)
    say(f"written to {os.path.relpath(path)}; the measurements are in {os.path.relpath(arguments.out)}/measurements.json")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as error:
        print(f"peers: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
