#!/usr/bin/env bash
# The first minutes on a machine with a GPU, from the root of a checkout: tests and measurements, then the configurations of
# 2015 with scale=paper_fast as far as the time goes.
#
#   bash benchmarks/gpu_first_minutes.sh            PARTS="tests bench sweeps", LIMIT=480 seconds for tests and measurements,
#                                                   SWEEP_S=600 for the sweeps, which go on where an earlier call ended
#
# Where a call may take ten minutes: PARTS="tests bench" LIMIT=540, mend, then PARTS=sweeps SWEEP_S=540 in another.
#
# It needs no network, no git and no home: Python 3.11 or newer with torch, and the packages of WHEELS (a folder of wheels,
# benchmarks/wheels unless set) where the Python lacks them; benchmarks/gpu_wheels.sh fills it where there is a network.
# Nothing is written to the checkout. What is to be kept goes to OUT (/tmp/out unless set), eight files. Each part has a
# limit of its own, and the next begins whatever the last one did.
set -u
DRY=${DRY:-} MORE=${MORE:-}
start=$(date +%s); limit=${LIMIT:-480}; sweep_s=${SWEEP_S:-600}; parts=" ${PARTS:-tests bench sweeps} "
root=$(cd "$(dirname "$0")/.." && pwd); cd "$root" || exit 2
export OUT=${OUT:-/tmp/out} PYTHON=${PYTHON:-python3}; mkdir -p "$OUT"
wheels=${WHEELS:-$root/benchmarks/wheels}; site=${SITE:-/tmp/stnbench-site}
left() { echo $((limit - $(date +%s) + start)); }
at_least() { [ "$1" -gt "$2" ] && echo "$1" || echo "$2"; }
say() { echo "== $* ($(left) s left)"; }
exec > >(tee -a "$OUT/first_minutes.log") 2>&1
if compgen -G "$wheels/*.whl" > /dev/null; then
  "$PYTHON" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$site" "$wheels"/*.whl || exit 2
  export PYTHONPATH=$site:$root/src:$root/tests/support
else
  export PYTHONPATH=$root/src:$root/tests/support
fi
export PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=${HOME:-/tmp} TRITON_CACHE_DIR=${TRITON_CACHE_DIR:-/tmp/stnbench/triton}
export STNBENCH_RUNS=${STNBENCH_RUNS:-/tmp/stnbench/runs} STNBENCH_DATA=${STNBENCH_DATA:-/tmp/stnbench/data}
mkdir -p "$STNBENCH_RUNS" "$STNBENCH_DATA"

say "facts"
nvidia-smi --query-gpu=index,uuid,name,driver_version,memory.total,mig.mode.current,power.limit --format=csv
say "signs are drawn in the background"
nice "$PYTHON" benchmarks/gpu.py --draw $DRY > "$OUT/drawing.log" 2>&1 &
drawing=$!
if [[ $parts == *" tests "* ]]; then
  say "tests that need a GPU"
  # an interrupt lets pytest say what it has found
  timeout -s INT -k 10 "${TESTS_S:-170}" "$PYTHON" -m pytest -q --noconftest -o addopts=--import-mode=importlib -o filterwarnings= \
    -p no:cacheprovider --tb=short --maxfail=40 -rfE -m cuda tests/cuda 2>&1 | tail -n 200 | tee "$OUT/pytest_cuda.txt"
fi
timeout "$(at_least "$(left)" 60)" tail --pid="$drawing" -f /dev/null; tail -n 3 "$OUT/drawing.log"
if [[ $parts == *" bench "* ]]; then
  say "measurements"
  timeout "$(at_least "$(left)" 30)" "$PYTHON" benchmarks/gpu.py $DRY --limit "$(at_least $(($(left) - 15)) 15)" --out "$OUT/gpu.md" \
    | tee "$OUT/gpu.jsonl"
fi
if [[ $parts == *" sweeps "* ]]; then
  say "the configurations of 2015"
  end=$(($(date +%s) + sweep_s)); work=$STNBENCH_RUNS/first-minutes; mkdir -p "$work"
  for name in baseline locnet_sizes normalisation training_images multiple_st idsia_st locnet_large idsia_multiple_st; do
    now=$(date +%s); [ $((end - now)) -gt 20 ] || break
    (cd "$work" && timeout $((end - now + 30)) "$PYTHON" -m stnbench.sweep "$name" scale="${SCALE:-paper_fast}" dataset=signs \
      --slots-per-gpu "${SLOTS_PER_GPU:-4}" --no-mlflow --budget $((end - now - 10))s $MORE 2>&1 | tail -n 25)
  done | tee "$OUT/sweeps_2015.txt"
  for store in "$STNBENCH_RUNS"/*.db; do gzip -c "$store" > "$OUT/$(basename "$store").gz"; done 2> /dev/null
fi
say "done"
