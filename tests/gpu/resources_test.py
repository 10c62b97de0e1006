# SPDX-License-Identifier: Apache-2.0
"""What the compiler made of the CUDA kernels: registers and shared memory within their limits, nothing in local memory,
the instructions that the fast kernels are written for. No GPU is needed.

usage: resources_test.py BINARY [--update]      BINARY: libassay-cuda.so, or any object with kernels

Limits lie in resources.json, per kernel and architecture; --update writes those of BINARY. They hold for the toolkit that
is named there: another one's registers are not compared, everything else is. Exit code 77: skipped, there is no cuobjdump.
"""
import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from itertools import chain

LIMITS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "resources.json")
SKIPPED = 77

# Disassembled, which takes most of the time; the other architectures get the same code, and their figures are compared.
DISASSEMBLED = ["sm_80", "sm_90a"]

# Kernels that may use local memory, with the reason: (file, name, why), regular expressions.
LOCAL_MEMORY_ALLOWED = []

# Instructions without which a kernel is not what it claims to be: (file, name, architecture, instruction).
REQUIRED = [
    (r"attention_sm90\.cu", r"Prefill", r"sm_90a", r"HGMMA"),
    (r"attention_sm80\.cu", r"Decode|Prefill", r"sm_\w+", r"HMMA"),
    (r"(gemm|gemv)_sm80\.cu", r"TensorKernel", r"sm_\w+", r"HMMA"),
    (r"gemv_sm80\.cu", r"TensorKernel", r"sm_\w+", r"LDGSTS\.E(\.\w+)*\.128"),
    (r"gemv\.cu", r"Gemv", r"sm_\w+", r"LDG\.E(\.\w+)*\.(128|256)"),
]


def find_tool(name):
    beside_nvcc = os.path.join(os.environ.get("CUDA_HOME", "/usr/local/cuda"), "bin", name)
    return shutil.which(name) or (beside_nvcc if os.access(beside_nvcc, os.X_OK) else None)


def toolkit():
    nvcc = find_tool("nvcc")
    text = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout if nvcc else ""
    release = re.search(r"release ([\d.]+)", text)
    return release.group(1) if release else "unknown"


def lines_of(command):
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    yield from process.stdout
    if process.wait() != 0:
        sys.exit(f"{' '.join(command)}: {process.stderr.read().strip()}")


def plain_names(mangled):
    """{mangled: "gemv.cu GemvKernel<unsigned short, 4>"}: the file, the name, what it is an instance of."""
    names = sorted(mangled)
    text = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True).stdout
    plain = {}
    for name, demangled in zip(names, text.splitlines()):
        # Names without linkage hold their file, "probe.cu", as "8_probe_cu", between two hashes.
        file = re.search(r"_GLOBAL__N__[0-9a-f]{8}_\d+_(\w+?)_cu_[0-9a-f]{8}", name)
        depth, end = 0, len(demangled)
        for at in range(len(demangled) - 1, -1, -1):  # the parameter list is the last pair of parentheses
            depth += {")": 1, "(": -1}.get(demangled[at], 0)
            if depth == 0 and demangled[at] == "(":
                end = at
                break
        short = re.sub(r"assay::gpu::|\(anonymous namespace\)::|^void ", "", demangled[:end])
        plain[name] = f"{file.group(1)}.cu {short}" if file else f"? {short}"
    return plain


def read_usage(binary):
    """{(mangled name, architecture): {"registers", "shared", "stack", "local"}}"""
    usage, arch, function = {}, None, None
    for line in lines_of([find_tool("cuobjdump"), "--dump-resource-usage", binary]):
        if found := re.match(r"\s*arch = (\w+)", line):
            arch = found.group(1)
        elif found := re.match(r"\s*Function (\S+):", line):
            function = found.group(1)
        elif function and (figures := dict(re.findall(r"(\w+):(\d+)", line))) and "REG" in figures:
            usage[function, arch] = {key: int(figures.get(field, 0)) for key, field in
                                     (("registers", "REG"), ("shared", "SHARED"), ("stack", "STACK"), ("local", "LOCAL"))}
            function = None
    return usage


def read_instructions(binary):
    """{(mangled name, architecture): the set of instructions with their modifiers}"""
    instructions, arch, current = {}, None, set()
    for line in chain.from_iterable(lines_of([find_tool("cuobjdump"), "-sass", "-arch", one, binary]) for one in DISASSEMBLED):
        if found := re.match(r"\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)", line):
            current.add(found.group(1))
        elif found := re.match(r"\s*arch = (\w+)", line):  # "code for" drops the a of sm_90a
            arch = found.group(1)
        elif found := re.match(r"\s*Function : (\S+)", line):
            current = instructions.setdefault((found.group(1), arch), set())
    return instructions


def check(kernels, limits, same_toolkit):
    """kernels: {(plain name, architecture): {"registers", ..., "instructions"}}. Returns what is wrong."""
    wrong = []
    for (name, arch), kernel in sorted(kernels.items()):
        file, short = name.split(" ", 1)
        where = f"{name} ({arch})"
        allowed = any(re.fullmatch(f, file) and re.search(n, short) for f, n, _ in LOCAL_MEMORY_ALLOWED)
        spills = sorted(i for i in kernel["instructions"] if re.match(r"(LDL|STL)\b", i))
        if not allowed and (kernel["stack"] or kernel["local"] or spills):
            wrong.append(f"{where} uses local memory: {kernel['stack']} bytes of stack, {', '.join(spills) or 'no spills'}")
        limit = limits.get(name, {}).get(arch)
        if limit is None:
            wrong.append(f"{where} has no limit in resources.json: look at its figures, then run with --update")
            continue
        for key in ("registers", "shared"):
            if kernel[key] > limit[key] and same_toolkit:
                wrong.append(f"{where}: {kernel[key]} {key}, the limit is {limit[key]}")
    for file_rule, name_rule, arch_rule, instruction in REQUIRED:
        matching = 0
        for (name, arch), kernel in sorted(kernels.items()):
            file, short = name.split(" ", 1)
            if not (re.fullmatch(file_rule, file) and re.search(name_rule, short) and re.fullmatch(arch_rule, arch)):
                continue
            matching += 1
            if arch in DISASSEMBLED and not any(re.match(instruction, i) for i in kernel["instructions"]):
                wrong.append(f"{name} ({arch}) holds no {instruction}")
        if matching == 0:
            wrong.append(f"no kernel named {name_rule} of a file {file_rule} for {arch_rule}: REQUIRED is out of date")
    wrong += [f"resources.json limits {name}, which is gone: run with --update"
              for name in sorted(set(limits) - {name for name, _ in kernels})]
    return wrong


def read_kernels(binary):
    usage, instructions = read_usage(binary), read_instructions(binary)
    if not usage:
        sys.exit(f"{binary} holds no kernels")
    plain = plain_names({name for name, _ in usage})
    return {(plain[name], arch): {**figures, "instructions": instructions.get((name, arch), set())}
            for (name, arch), figures in usage.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary")
    parser.add_argument("--update", action="store_true")
    arguments = parser.parse_args()
    for tool in ("cuobjdump", "nvdisasm", "c++filt"):
        if not find_tool(tool):
            print(f"resources: Skipped\n{tool} is not installed (it comes with the full CUDA toolkit)")
            return SKIPPED
    kernels = read_kernels(arguments.binary)
    if arguments.update:
        limits = {}
        for (name, arch), kernel in sorted(kernels.items()):
            limits.setdefault(name, {})[arch] = {key: kernel[key] for key in ("registers", "shared")}
        rows = [f"  {json.dumps(name)}: {json.dumps(archs)}" for name, archs in limits.items()]
        with open(LIMITS, "w", encoding="utf-8") as file:
            file.write(f'{{"toolkit": "{toolkit()}", "kernels": {{\n' + ",\n".join(rows) + "\n}}\n")
    with open(LIMITS, encoding="utf-8") as file:
        committed = json.load(file)
    same_toolkit = committed["toolkit"] == toolkit()
    wrong = check(kernels, committed["kernels"], same_toolkit)
    print("\n".join(wrong + [f"{len(kernels)} kernels, {len(wrong)} complaints" +
                             ("" if same_toolkit else f"; registers were not compared: limits are of {committed['toolkit']}")]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
