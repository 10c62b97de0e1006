# SPDX-License-Identifier: Apache-2.0
"""Writes docs/ops.md: which operation runs where, from the conformance reports of the devices themselves.

usage: make_ops_table.py BUILD [--reports DIR]     runs the devices of a build folder; reports that lie in DIR are taken
                                                   from there, new ones are kept there
       make_ops_table.py --check                   whether docs/ops.md is this script's, and names every operation

Columns of real cards come from bench/data/measured/*/conform.json.
"""
import argparse
import glob
import hashlib
import json
import os
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PAGE = os.path.join(ROOT, "docs/ops.md")
NEVER_RUN = "compiled, never run on a card"

# Heading, name of the report, device.
DEVICES = [
    ("`cpu`", "cpu", "cpu"),
    ("`ref`", "ref", "ref"),
    ("GPU kernels, emulated, warps of 32", "emulated32", "{build}/tests/gpu/libassay-emulated-gpu32.so"),
    ("... of 64", "emulated64", "{build}/tests/gpu/libassay-emulated-gpu64.so"),
    ("... of 128", "emulated128", "{build}/tests/gpu/libassay-emulated-gpu128.so"),
]

# What only some architectures have, by the suffix of its file; everything else is portable.
LEAVES = {
    "kernels/cuda/attention_sm80.cu": ("attention: prefill and split decode on mma.sync, cp.async", "8.0 and later"),
    "kernels/cuda/attention_sm90.cu": ("prefill attention on wgmma, bulk copies", "9.0 (Hopper)"),
    "kernels/cuda/gemv_sm80.cu": ("products with up to 16 rows on mma.sync, weights by cp.async", "8.0 and later"),
    "kernels/cuda/gemm_sm80.cu": ("products of quantised weights on mma.sync", "8.0 and later"),
    "kernels/cuda/gemm_lt.cc": ("dense products of cuBLASLt, opened at run time", "8.0 and later"),
}


CASES = os.path.join(ROOT, "tests/conformance/cases/*.txt")


def digest():
    """Of this script and the cases: a page that is older than either is found out."""
    sha = hashlib.sha256()
    for path in [os.path.abspath(__file__)] + sorted(glob.glob(CASES)):
        with open(path, "rb") as file:
            sha.update(file.read())
    return sha.hexdigest()[:12]


def case_operations():
    """Every operation that has conformance cases."""
    operations = set()
    for path in glob.glob(CASES):
        with open(path, encoding="utf-8") as file:
            operations |= {line.split()[0] for line in file if line.strip() and not line.startswith("#")}
    return sorted(operations)


def report_of(name, device, build, folder):
    path = os.path.join(folder, name + ".json")
    if not os.path.exists(path):
        command = [os.path.join(build, "assay"), "conform", "--json", "--device", device.format(build=os.path.abspath(build))]
        print(" ".join(command), file=sys.stderr)
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode not in (0, 1):  # 1: a case failed, which is for the table to say
            sys.exit(f"{' '.join(command)}: {run.stderr.strip()}")
        with open(path, "w", encoding="utf-8") as file:
            file.write(run.stdout)
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def cell(report, operation):
    """What passed, by dtype; what failed; or that nothing runs."""
    cases = [c for c in report["cases"] if c["op"] == operation]
    passed = [c["case"] for c in cases if c["status"] == "passed"]
    failed = sum(c["status"] == "failed" for c in cases)
    # The dtype that tells most: of weights where there are some, of caches, of activations.
    dtypes = []
    for case in passed:
        keys = dict(word.split("=", 1) for word in case.split()[1:])
        dtype = keys.get("w") or keys.get("kv") or keys.get("dtype")
        if dtype and dtype not in dtypes:
            dtypes.append(dtype)
    if failed:
        return f"**{failed} of {len(passed) + failed} cases fail**"
    if not passed:
        return "-"
    return f"{' '.join(sorted(dtypes)) + ' ' if dtypes else ''}({len(passed)})"


def markdown(head, rows):
    for row in [head, ["---"] * len(head), *rows]:
        yield "| " + " | ".join(row) + " |"


def measured_cards():
    """[(heading, report)] of every committed run on a card."""
    cards = []
    for path in sorted(glob.glob(os.path.join(ROOT, "bench/data/measured/*/conform.json"))):
        with open(path, encoding="utf-8") as file:
            report = json.load(file)
        cards.append((f"{report['device']['name']} ({os.path.basename(os.path.dirname(path))})", report))
    return cards


def leaf_rows(cards):
    found = {os.path.relpath(path, ROOT) for path in glob.glob(os.path.join(ROOT, "kernels/cuda/*_sm*.cu"))}
    if unknown := sorted(found - set(LEAVES)):
        sys.exit(f"LEAVES of {os.path.basename(__file__)} lacks {', '.join(unknown)}")
    for path, (what, architecture) in LEAVES.items():
        if os.path.exists(os.path.join(ROOT, path)):
            yield [what, architecture, f"`{path}`", f"see {cards[-1][0]}" if cards else NEVER_RUN]


def page(build, folder):
    reports = [(head, report_of(name, device, build, folder)) for head, name, device in DEVICES]
    cards = measured_cards()
    yield f"<!-- Generated by tests/conformance/make_ops_table.py ({digest()}); do not edit. -->"
    yield "# Operations and where they run"
    yield ""
    yield ("What conformance (`assay conform`) found: the dtypes with which cases passed - those of weights where an operation "
           "has weights, of the KV cache where it has one, else of activations - and in parentheses how many cases. `-`: the "
           "device declares nothing that would run a case. Operations are defined in "
           "[assay_backend.h](../backends/api/assay_backend.h); cases lie in `tests/conformance/cases`.")
    yield ""
    columns = reports + cards
    heads = ["operation"] + [head for head, _ in columns] + ([] if cards else ["NVIDIA (CUDA)"])
    yield from markdown(heads, ([f"`{op}`"] + [cell(report, op) for _, report in columns] + ([] if cards else [NEVER_RUN])
                                for op in case_operations()))
    yield ""
    yield ("The GPU kernels run on an emulated GPU in the tests: every kernel, at the three widths of a warp that cards have; "
           "those of one architecture at the width of 32. That shows what they compute, not how fast, and not what a real "
           "memory system makes of them.")
    yield ""
    yield "## Kernels of one architecture"
    yield ""
    yield "Each has a portable version beside it and the same cases."
    yield ""
    yield from markdown(["kernel", "compute capability", "file", "on a card"], leaf_rows(cards))


def check():
    with open(PAGE, encoding="utf-8") as file:
        text = file.read()
    wrong = [f"it does not name {op}" for op in case_operations() if f"| `{op}` |" not in text]
    if f"({digest()})" not in text.splitlines()[0]:
        wrong.append("it was made by another version of the script")
    leaves = [path for path in LEAVES if os.path.exists(os.path.join(ROOT, path)) and path not in text]
    wrong += [f"it does not name {path}" for path in leaves]
    wrong += [f"it does not hold the run on {head}" for head, _ in measured_cards() if head not in text]
    for line in wrong:
        print(f"docs/ops.md: {line}; run tests/conformance/make_ops_table.py build")
    return 1 if wrong else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build", nargs="?")
    parser.add_argument("--reports")
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    if arguments.check:
        return check()
    if not arguments.build:
        parser.error("the build folder is missing")
    with tempfile.TemporaryDirectory() as temporary:
        text = "\n".join(page(arguments.build, arguments.reports or temporary)) + "\n"
    with open(PAGE, "w", encoding="utf-8") as file:
        file.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
