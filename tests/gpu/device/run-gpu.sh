#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Everything there is to ask of one GPU, in one go of less than nine minutes: is it right, how fast is it, how far from
# its limits and from a peer. Lies in the bundle of `./dev gpu` beside the program. Writes every answer into OUT_DIR as it
# comes, so that a run that is cut keeps what it has; table.md holds the conclusions. It changes no clocks, limits or
# modes of the card.
set -uo pipefail
here=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
assay=$here/assay

STAGES=(facts conform parity sanitize kernels bench peer)
usage() {
  cat <<EOF
usage: run-gpu.sh [OUT_DIR] [--device cuda:0] [--only STAGE,...] [--seconds N] [--small]

  OUT_DIR        where the answers go (gpu-run); a second call with --only adds to it
  --device D     any device of assay: cuda:1, cpu, /path/plugin.so
  --only LIST    of ${STAGES[*]}
  --seconds N    end after this time (530)
  --small        tiny models only: tries the script itself, on any device
EOF
}

out=gpu-run device=cuda:0 only="" total=530 small=""
while (($#)); do
  case $1 in
    --device) device=${2:?--device needs a name}; shift ;;
    --only) only=${2:?--only needs stages}; shift ;;
    --seconds) total=${2:?--seconds needs a number}; shift ;;
    --small) small=1 ;;
    -h | --help) usage; exit 0 ;;
    -*) usage >&2; exit 2 ;;
    *) out=$1 ;;
  esac
  shift
done
for stage in ${only//,/ }; do
  [[ " ${STAGES[*]} " == *" $stage "* ]] || { echo "run-gpu.sh: no stage '$stage': ${STAGES[*]}" >&2; exit 2; }
done
mkdir -p "$out" || exit 2
out=$(cd "$out" && pwd)

# ---- time and record

end=$((SECONDS + total)) stage_end=0 stage=
say() { printf '%4d s  %s\n' "$SECONDS" "$*" | tee -a "$out/progress.txt"; }
# One line per thing that went wrong, for the head of the table.
problem() { printf '%s\t%s\n' "$stage" "$*" >>"$out/problems.txt"; say "PROBLEM in $stage: $*"; }
left() { echo $((stage_end - SECONDS)); }

# attempt NAME LIMIT OUTPUT COMMAND...: runs it into OUTPUT, what it says into NAME.log; an end by time is an interrupt
# first, upon which assay keeps finished trials. 1 of assay is a check that said no: the table tells which.
attempt() {
  local name=$1 limit=$2 output=$3 log=$out/$stage/$1.log rc begin=$SECONDS
  shift 3
  (($(left) < limit)) && limit=$(left)
  ((limit > 1)) || { problem "$name: not run, the time of the stage is over"; return 1; }
  timeout -s INT -k 5 "$limit" "$@" >"$output.part" 2>"$log"
  rc=$?
  mv "$output.part" "$output"
  [[ -s $output ]] || rm -f "$output"
  case $rc in
    0 | 1) say "$name: $((SECONDS - begin)) s" ;;
    124 | 130 | 137) problem "$name: ended after its $limit s" ;;
    *) problem "$name: exit code $rc: $(tail -n 1 "$log")" ;;
  esac
  return $rc
}

# pool WIDTH COMMAND...: in the background, at most WIDTH at a time.
pool() {
  local width=$1
  shift
  while (($(jobs -rp | wc -l) >= width)); do wait -n; done
  "$@" &
}

table() { # after every stage: a run that is cut has one too
  command -v python3 >/dev/null || return 0
  python3 "$here/table.py" "$out" >"$out/table.md.part" 2>"$out/table.log" && mv "$out/table.md.part" "$out/table.md"
}

# run_stage NAME LIMIT
run_stage() {
  stage=$1 stage_end=$((SECONDS + $2))
  [[ -z $only || ,$only, == *,$stage,* ]] || return 0
  ((stage_end < end)) || stage_end=$end
  (($(left) > 3)) || { problem "not run: no time is left"; table; return; }
  mkdir -p "$out/$stage"
  [[ ! -f $out/problems.txt ]] || sed -i "/^$stage\t/d" "$out/problems.txt" # of an earlier call
  say "== $stage, at most $(left) s"
  "stage_$stage"
  table
}

# ---- stages

cores=$(nproc)
processes=$((cores < 8 ? cores : 8))
stage_facts() {
  {
    date -u +%FT%TZ
    uname -srm
    sed -n 's/^PRETTY_NAME=//p' /etc/os-release
    grep -m 1 'model name' /proc/cpuinfo
    echo "$cores CPUs, $(awk '/MemTotal/ {print int($2 / 1048576)}' /proc/meminfo) GiB"
    "$assay" --version
    if command -v nvidia-smi >/dev/null; then
      nvidia-smi -L
      nvidia-smi --query-gpu=index,name,driver_version,vbios_version,pstate,clocks.sm,clocks.mem,clocks.max.sm,clocks.max.mem,power.limit,power.default_limit,temperature.gpu,ecc.mode.current,mig.mode.current,compute_mode,persistence_mode --format=csv
      nvidia-smi -q -d CLOCK,POWER,PERFORMANCE,MEMORY,ECC
    else
      echo "no nvidia-smi"
    fi
    echo "library folders added: $LD_LIBRARY_PATH"
    ldconfig -p 2>/dev/null | grep -E 'libcuda\.|libcublasLt|libnccl|libnvidia-ml'
    nvcc --version 2>/dev/null | tail -n 2
  } >"$out/facts/machine.txt" 2>&1
  attempt devices 20 "$out/facts/devices.txt" "$assay" devices
}

# One process per operation, so that one that loses the device takes no other with it. What is long is split by dtype.
stage_conform() {
  local op dtype long="linear attn_paged qk_norm_rope_kv_write kv_write_paged"
  echo "$seed" >"$out/conform/seed"
  for op in $long; do
    for dtype in bf16 f16 f32; do
      pool "$processes" conform "$op-$dtype" "^$op .*dtype=$dtype( |$)"
    done
  done
  for op in $(<"$here/operations.txt"); do
    [[ " $long " == *" $op "* ]] || pool "$processes" conform "$op" "^$op "
  done
  wait
}
conform() { # NAME REGEX
  attempt "$1" 90 "$out/conform/$1.json" "$assay" conform --device "$device" --seed "$seed" --op "$2" --json
}
seed=$(date +%s) # fresh inputs in every run

# Log-probabilities of the device beside those of Hugging Face (in f32, golden) or of the CPU.
stage_parity() {
  local golden model name
  for golden in "$here"/checkpoints/*.golden.json; do
    name=$(basename "$golden" .golden.json)
    model=$here/checkpoints/$name
    [[ -e $model ]] || model+=.gguf
    grep -o '"ids": *\[[^]]*\]' "$golden" | grep -o '\[.*' >"$out/parity/$name.ids"
    cp "$golden" "$out/parity/"
    pool "$processes" score "$name-f32" "$model" f32 "$device" "$out/parity/$name.ids"
    [[ -n $small ]] || { # as the file has it, beside the CPU
      pool "$processes" score "$name-auto" "$model" auto "$device" "$out/parity/$name.ids"
      pool "$processes" score "$name-auto-cpu" "$model" auto cpu "$out/parity/$name.ids"
    }
  done
  wait
  [[ -z $small ]] || return
  echo "[$(seq -s , 100 60 2400)]" >"$out/parity/long.ids"
  echo "[$(seq -s , 100 100 1200)]" >"$out/parity/short.ids"
  both llama-3.2-1b bf16 cpu long &
  # The CPU's own kernels have no such weights; the reference is slow, therefore few tokens of a small model.
  both qwen3-0.6b fp8 ref short &
  both qwen3-0.6b int4 ref short &
  wait
}
both() { # SHAPE DTYPE HOST IDS
  score "$1-$2" "shape:$1" "$2" "$device" "$out/parity/$4.ids"
  score "$1-$2-$3" "shape:$1" "$2" "$3" "$out/parity/$4.ids"
}
score() { # NAME MODEL DTYPE DEVICE IDS
  attempt "$1" 45 "$out/parity/$1.json" "$assay" score --model "$2" --dtype "$3" --device "$4" --tokens "$5" --json
}

# Small cases of every operation, with every access to memory watched.
stage_sanitize() {
  local tool sanitizer
  sanitizer=$(PATH=$PATH:/usr/local/cuda/bin command -v compute-sanitizer) ||
    { problem "compute-sanitizer is not installed here: no accesses were checked"; return; }
  for tool in memcheck racecheck; do
    pool "$processes" sanitize "$tool" linear '^linear .*dtype=bf16 k=(96|577|640) m=(1|5|17|31) '
    pool "$processes" sanitize "$tool" attention \
      '^attn_paged block=64 dim=(64|128) dtype=bf16 .*kv=bf16 .*layout=hnd .*qlens=(21,1,7,0,1|70|1,2|1)( |$)'
    pool "$processes" sanitize "$tool" rows '^(rms_norm|add_rms_norm|glu|rope|gather_rows|cast|add_scale) .*bf16'
    pool "$processes" sanitize "$tool" sample '^(sample|logprobs) .*vocab=[0-9]{1,4}( |$)|^embed .*dtype=bf16 .*tokens=(7|23) |^probe_read '
    pool "$processes" sanitize "$tool" cache \
      '^(kv_write_paged|kv_block_copy|qk_norm_rope_kv_write) block=64 .*dim=64 .*kv=bf16 .*layout=hnd'
  done
  wait
}
sanitize() { # TOOL NAME REGEX
  attempt "$1-$2" 45 "$out/sanitize/$1-$2.json" "$sanitizer" --tool "$1" --error-exitcode 86 \
    --log-file "$out/sanitize/$1-$2.txt" "$assay" conform --device "$device" --op "$3" --json
}

# The shapes of the targets first: what a call has not finished is lost.
stage_kernels() {
  if [[ -n $small ]]; then
    kernels small '^(rms_norm|glu) '
  else
    kernels targets '^(linear|attn_paged) .*perf=2'
    kernels others '^(?!linear|attn_paged|embed).*perf=1'
    kernels small-products '^(linear|attn_paged) .*dtype=bf16 .*perf=1'
  fi
}
kernels() { # NAME REGEX
  attempt "$1" 100 "$out/kernels/$1.json" "$assay" kernels --device "$device" --filter "$2" --json
}

# Most valuable first. The seconds of a row hold loading, warm-up and the times of single operations, too. The accuracy
# guard is left out: the reference needs minutes for eight billion weights, and the stage parity has compared.
stage_bench() {
  # 208 sequences: 256 of 2176 tokens need 73 GB of cache, which an 80 GB card does not have beside 16 GB of weights.
  local rows=(
    "llama-3.2-1b bf16 1 128 256 25 --requests 2 --trials 4"
    "llama-3.1-8b bf16 1 128 256 60 --requests 1 --trials 3 --power auto --power-seconds 8"
    "llama-3.1-8b fp8 1 128 256 35 --requests 1 --trials 3"
    "llama-3.1-8b int4 1 128 256 35 --requests 1 --trials 3"
    "llama-3.1-8b bf16 1 8192 1 35 --requests 1 --trials 4"
    "llama-3.1-8b bf16 208 128 2048 150 --requests 208 --trials 1"
    "llama-3.1-8b bf16 64 128 128 60 --trials 3 --power auto --power-seconds 8"
    "llama-3.1-8b bf16 256 128 128 45 --trials 3"
    "llama-3.1-8b bf16 8 128 128 30 --trials 3"
    "llama-3.1-8b bf16 32 128 128 30 --trials 3"
    "llama-3.1-8b bf16 128 128 128 35 --trials 3"
    "llama-3.1-8b fp8 32 128 128 30 --trials 3"
    "llama-3.1-8b int4 32 128 128 30 --trials 3"
    "llama-3.2-1b bf16 8 128 128 20 --trials 3"
    "llama-3.2-1b bf16 32 128 128 20 --trials 3"
    "llama-3.2-1b bf16 64 128 128 20 --trials 3"
    "llama-3.2-1b bf16 128 128 128 20 --trials 3"
    "llama-3.2-1b bf16 256 128 128 20 --trials 3"
    "llama-3.2-1b fp8 1 128 256 20 --requests 2 --trials 3"
    "llama-3.2-1b int4 1 128 256 20 --requests 2 --trials 3"
    "llama-3.1-8b fp8 256 128 128 45 --trials 3"
  )
  [[ -z $small ]] || rows=("llama-mha bf16 1 16 8 60 --requests 1 --trials 2" "llama-mha bf16 4 16 8 60 --trials 2")
  local row model dtype batch isl osl limit options scenario
  for row in "${rows[@]}"; do
    read -r model dtype batch isl osl limit options <<<"$row"
    # Not begun if it could not end; a shorter one below may.
    (($(left) >= limit * 2 / 3)) || { problem "$model $dtype batch $batch $isl/$osl: not run, no time is left"; continue; }
    [[ $options == *--power* ]] || options+=" --power none"
    scenario=(--scenario single-stream)
    ((batch == 1)) || scenario=(--scenario offline --concurrency "$batch")
    # shellcheck disable=SC2086
    attempt "$model-$dtype-$batch-$isl-$osl" "$limit" "$out/bench/$model-$dtype-$batch-$isl-$osl.txt" \
      "$assay" bench --device "$device" --model "$(model_of "$model")" --dtype "$dtype" "${scenario[@]}" \
      --isl "$isl" --osl "$osl" --no-guard --out "$out/bench" $options
  done
}
model_of() {
  if [[ -n $small ]]; then echo "$here/checkpoints/$1"; else echo "shape:$1"; fi
}

stage_peer() {
  python3 -c 'import torch' 2>/dev/null || { problem "there is no python3 with PyTorch here: no peer"; return; }
  local arguments=()
  [[ -z $small ]] || arguments=(--small)
  attempt peer "$(left)" "$out/peer/peer.txt" python3 "$here/peer_torch.py" --out "$out/peer/peer.json" \
    --seconds $(($(left) - 3)) --device "$([[ $device == cuda* ]] && echo "$device" || echo cpu)" "${arguments[@]}"
}

# ---- the run

[[ -x $assay ]] || { echo "run-gpu.sh: $assay is not there: run the script from the bundle of ./dev gpu" >&2; exit 2; }
# Libraries of the toolkit that the dynamic linker does not find by itself, PyTorch's own among them.
if ! ldconfig -p 2>/dev/null | grep -q libcublasLt; then
  for folder in /usr/local/cuda/lib64 /usr/local/cuda/targets/x86_64-linux/lib \
    $(python3 -c 'import glob, sysconfig; print(*glob.glob(sysconfig.get_path("purelib") + "/nvidia/*/lib"))' 2>/dev/null); do
    if compgen -G "$folder/libcublasLt.so.*" >/dev/null || compgen -G "$folder/libnccl.so.*" >/dev/null; then
      export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$folder
    fi
  done
fi
export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:-}

# The device is there and does what an empty call asks, or there is no use in going on.
why=$("$assay" conform --device "$device" --op '^glu .*tokens=0' --json 2>&1 >/dev/null) || {
  echo "run-gpu.sh: $device does not work: ${why:-an empty operation failed}" >&2
  "$assay" devices >&2
  exit 2
}
say "device $device, into $out, at most $total s"
meter=
if command -v nvidia-smi >/dev/null; then # clocks and throttling, twice a second, for the whole run
  nvidia-smi --query-gpu=timestamp,index,clocks.sm,clocks.mem,power.draw.instant,temperature.gpu,utilization.gpu,clocks_event_reasons.active \
    --format=csv -lms 500 >>"$out/clocks.csv" 2>&1 &
  meter=$!
  disown "$meter" # so that `wait` does not wait for it
  trap 'kill "$meter" 2>/dev/null' EXIT
fi

# The limits add up to more than the whole: a stage that needs less leaves the rest to those that follow.
run_stage facts 30
run_stage conform 100
run_stage parity 60
run_stage sanitize 50
run_stage kernels 130
run_stage bench $((end - SECONDS - 75)) # leaves the peer its time
run_stage peer 120
stage=end
touch "$out/problems.txt"
say "done; problems: $(grep -c . "$out/problems.txt")"
if [[ -f $out/table.md ]]; then
  cat "$out/table.md"
else
  say "no table: python3 is not here, or failed ($out/table.log); the answers lie in $out"
fi
