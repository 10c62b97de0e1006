#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The house rules that a compiler does not check. Called by `./dev lint [--tidy]`.
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."

MAX_LINES=800
CODE=('*.h' '*.cc' '*.c' '*.cu' '*.cuh' '*.inc')
SCRIPTS=('*.py' '*.sh' '*.cmake' dev .ci/run)
BUILD=build

findings=0
# report RULE: every line on stdin is a finding.
report() {
  local line
  while IFS= read -r line; do
    printf '%s: %s\n' "$1" "$line"
    findings=$((findings + 1))
  done
}

files() { git ls-files --cached --others --exclude-standard --deduplicate -- "$@"; }

# includes PATTERN PATHSPEC...: the #include lines that match.
includes() {
  local pattern=$1
  shift
  git grep --untracked -nE "^ *# *include *[<\"]($pattern)" -- "$@" || true
}

clang-format-14 --version >/dev/null
report 'run clang-format-14 -i' < <(files "${CODE[@]}" | xargs -d '\n' -P "$(nproc)" -n 16 clang-format-14 --dry-run 2>&1 |
  sed -n 's/:[0-9]*:[0-9]*: warning: .*-Wclang-format-violations.*//p' | sort -u)

# Who may include whom. CMake enforces it where a room is a library of its own; this sees the rest.
report 'include against the flow' < <(
  includes '(backends|runtime|models|bench)/' kernels
  includes '(runtime|models|bench)/' backends
  includes '(kernels/cpu|backends/cpu)/' kernels/cuda backends/cuda backends/common
  includes '(kernels/cuda|backends/cuda)/' kernels/cpu backends/cpu kernels/ref
  includes '(kernels|models|bench)/|backends/[^a]' runtime
  includes '(kernels|bench)/|backends/[^a]' models
)
report 'vendor header outside kernels/cuda and backends/cuda' < <(
  includes '(cuda|cublas|cudnn|nccl|nvml|hip/|rccl|acl/|musa|mcr/)' "${CODE[@]}" ':!kernels/cuda' ':!backends/cuda'
)

# Kernels that every vendor's toolkit shall compile: what only one has stands in gpu.h and in files of one architecture.
report 'one toolkit only, in a portable kernel' < <(git grep --untracked -nE \
  '__CUDA_ARCH__|\basm\b|0x[fF]{8}|warpSize|<<<|cooperative_groups|cub::|wmma|cp\.async' -- kernels/cuda \
  ':!kernels/cuda/gpu.h' ':!kernels/cuda/*_sm[0-9]*' ':!kernels/cuda/CMakeLists.txt' | grep -vE '^[^:]*:[0-9]+: *//' || true)

report 'no SPDX licence line in the first three lines' < <(files "${CODE[@]}" "${SCRIPTS[@]}" |
  xargs -d '\n' awk '
    FNR == 1 { if (missing) print file; file = FILENAME; missing = 1 }
    FNR <= 3 && /SPDX-License-Identifier: Apache-2.0/ { missing = 0 }
    END { if (missing) print file }')
report "longer than $MAX_LINES lines" < <(files "${CODE[@]}" "${SCRIPTS[@]}" | xargs -d '\n' awk -v max=$MAX_LINES '
  FNR == max + 1 { print FILENAME }')
report 'unfinished' < <(git grep --untracked -nwE 'TODO|FIXME|XXX' -- "${CODE[@]}" "${SCRIPTS[@]}" '*.md' ':!cmake/lint.sh' || true)

if [[ ${1:-} == --tidy ]]; then
  # Folders without a compile command (another architecture, a plug-in built out of tree) are not looked at; a file that
  # is compiled in one piece with others gets its neighbour's.
  report tidy < <(files '*.cc' | while read -r file; do
    if grep -qF "\"file\": \"$PWD/${file%/*}/" "$BUILD/compile_commands.json"; then echo "$file"; fi
  done | xargs -d '\n' -P "$(nproc)" -n 1 clang-tidy --quiet -p "$BUILD" 2>/dev/null | grep -E ' (warning|error): ' | sort -u)
fi

if ((findings)); then
  echo "lint: $findings findings"
  exit 1
fi
echo 'lint: clean'
