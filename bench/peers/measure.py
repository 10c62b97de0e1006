# SPDX-License-Identifier: Apache-2.0
"""The programs that are compared, each with trial(): one measurement, as {"prefill", "decode"} tokens per second or {"load"}
starts per second. assay and PyTorch stay warm between their trials; llama.cpp's tools start and warm up anew for each."""
import contextlib
import json
import os
import subprocess
import tempfile
import threading
import time

import make_gguf
import page
from programs import Failed

LIMIT_S = 900  # only tells a hang


def last_line(text):
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else "no word"


def run(command):
    name = os.path.basename(command[0])
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        raise Failed(f"{name} did not end within {LIMIT_S} s") from None
    if done.returncode != 0:
        raise Failed(f"{name} ended with {done.returncode}: {last_line(done.stderr)}")
    return done.stdout


def send(process, line):
    """To a program that may be gone: what it says, or does not say, next tells so."""
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(line + "\n")
        process.stdin.flush()


def end(process):
    """Closes its input, which ends it."""
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()


@contextlib.contextmanager
def limited(name, process):
    """Kills a program that does not answer within LIMIT_S, so that who reads from it meets the end."""
    start, timer = time.monotonic(), threading.Timer(LIMIT_S, process.kill)
    timer.start()
    try:
        yield
    except Failed:
        if time.monotonic() - start < LIMIT_S:
            raise
        raise Failed(f"{name} did not answer within {LIMIT_S} s") from None
    finally:
        timer.cancel()


@contextlib.contextmanager
def parsing(name):
    try:
        yield
    except (ValueError, KeyError, TypeError) as error:
        raise Failed(f"{name} printed something unexpected: {error!r}") from None


class Assay:
    """`assay bench --paced`: loaded and warm, it begins a trial for each line."""

    def __init__(self, program, row, path, out, pairs):
        command = [program, "bench", "--model", path, "--isl", str(row.isl), "--osl", str(row.osl + 1), "--threads",
                   str(row.threads), "--trials", str(pairs + 1), "--no-guard", "--power", "none", "--out", out, "--json",
                   "--paced"]
        command += (["--requests", str(row.repeats)] if row.batch == 1 else
                    ["--scenario", "offline", "--concurrency", str(row.batch)])
        command += ["--isa", row.isa] if row.isa else []
        self.printed = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=self.printed, stderr=subprocess.PIPE, text=True)
        try:
            self.await_ready()
        except Failed:
            self.close()
            raise

    def await_ready(self):
        words = ""
        with limited("assay", self.process):
            for line in self.process.stderr:
                if line.startswith("ready for trial"):
                    return
                words += line
            raise Failed(f"assay ended with {self.process.wait()}: {last_line(words)}")

    def trial(self):
        send(self.process, "")
        self.await_ready()
        return {}  # the result has it

    def finish(self):
        """The result, which holds what each trial measured."""
        end(self.process)
        with limited("assay", self.process):
            words = self.process.stderr.read()
            self.process.wait()
        self.printed.seek(0)
        text = self.printed.read()
        self.close()
        if not text:
            raise Failed(f"assay ended with {self.process.returncode}: {last_line(words)}")
        with parsing("assay"):
            return json.loads(text)

    def close(self):
        end(self.process)
        with limited("assay", self.process):
            self.process.wait()
        self.process.stderr.close()
        self.printed.close()


class AssayLoad:
    """The whole life of a process that reads a model's file and says one token."""

    def __init__(self, program, row, path, out):
        ids = os.path.join(out, "one-token.json")
        with open(ids, "w", encoding="utf-8") as file:
            file.write("[1]")
        self.command = [program, "generate", "--model", path, "--token-ids", ids, "-n", "1", "--threads", str(row.threads), "--json"]

    def trial(self):
        start = time.perf_counter()
        run(self.command)
        return {"load": 1 / (time.perf_counter() - start)}


class LlamaCpp:
    def __init__(self, tools, row, path):
        self.bench, self.batched = (os.path.join(tools, tool) for tool in ("llama-bench", "llama-batched-bench"))
        self.row, self.path = row, path

    def trial(self):
        row = self.row
        if row.kind == "load":
            start = time.perf_counter()
            run([self.bench, "-m", self.path, "-t", str(row.threads), "-p", "1", "-n", "0", "-r", "1", "--no-warmup", "-o", "json"])
            return {"load": 1 / (time.perf_counter() - start)}
        if row.kind == "speed":
            common = [self.bench, "-m", self.path, "-t", str(row.threads), "-r", str(row.repeats), "-o", "json"]
            prefill = run(common + ["-p", str(row.isl), "-n", "0"])
            decode = run(common + ["-p", "0", "-n", str(row.osl), "-d", str(row.isl)])
            with parsing("llama-bench"):
                return {"prefill": page.llama_bench_tps(prefill, row.isl, 0, 0),
                        "decode": page.llama_bench_tps(decode, 0, row.osl, row.isl)}
        text = run([self.batched, "-m", self.path, "-t", str(row.threads), "-npp", str(row.isl), "-ntg", str(row.osl), "-npl",
                    str(row.batch), "-c", str(row.batch * (row.isl + row.osl)), "-fa", "on", "--output-format", "jsonl"])
        with parsing("llama-batched-bench"):
            return page.batched_bench_tps(text, row.batch)


class Torch:
    def __init__(self, python, row):
        self.row = row
        worker = os.path.join(os.path.dirname(os.path.abspath(__file__)), "torch_peer.py")
        _, hidden, layers, heads, kv_heads, size, ffn, vocab = make_gguf.SHAPES[row.model][:8]
        sizes = [str(n) for n in (hidden, layers, heads, kv_heads, size, ffn, vocab)]
        self.errors = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen([python, worker, *sizes, "--threads", str(row.threads)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=self.errors, text=True)
        try:
            self.about = self.answer()
        except Failed:
            self.finish()
            raise

    def answer(self):
        with limited("PyTorch", self.process):
            line = self.process.stdout.readline()
            if not line:
                code = self.process.wait()
                self.errors.seek(0)
                raise Failed(f"PyTorch ended with {code}: {last_line(self.errors.read())}")
        with parsing("PyTorch"):
            return json.loads(line)

    def trial(self):
        speeds = {}
        for what, tokens, context in (("prefill", self.row.isl, 0), ("decode", self.row.osl, self.row.isl + self.row.osl // 2)):
            send(self.process, json.dumps({"what": what, "tokens": tokens, "context": context}))
            speeds[what] = tokens / self.answer()["seconds"]
        return speeds

    def finish(self):
        end(self.process)
        with limited("PyTorch", self.process):
            self.process.wait()
        self.process.stdout.close()
        self.errors.close()
