#!/usr/bin/env bash
# The first minutes on a machine with a GPU, from the root of a checkout: tests and measurements within 8 minutes, then the
# configurations of 2015 with scale=paper_fast as far as the time goes.
#
#   bash benchmarks/gpu_first_minutes.sh            LIMIT=480 seconds of tests and measurements, SWEEP_S=600 of sweeps
#
# It needs no network: Python 3.11 or newer with torch, and the packages of WHEELS (a folder of wheels, benchmarks/wheels
# unless set) where the Python lacks them; benchmarks/gpu_wheels.sh fills it where there is a network. What is to be kept
# goes to OUT (/tmp/out unless set). Each part has a limit of its own, and the next begins whatever the last one did.
set -u
start=$(date +%s); limit=${LIMIT:-480}; sweep_s=${SWEEP_S:-600}
root=$(cd "$(dirname "$0")/.." && pwd); cd "$root" || exit 2
export OUT=${OUT:-/tmp/out} PYTHON=${PYTHON:-python3}; mkdir -p "$OUT"
wheels=${WHEELS:-$root/benchmarks/wheels}; site=${SITE:-/tmp/stnbench-site}
left() { echo $((limit - $(date +%s) + start)); }
say() { echo "== $* ($(left) s left)"; }
exec > >(tee -a "$OUT/first_minutes.log") 2>&1
if compgen -G "$wheels/*.whl" > /dev/null; then
  "$PYTHON" -m pip install -q --no-index --no-deps --no-compile --upgrade --target "$site" "$wheels"/*.whl || exit 2
  export PYTHONPATH=$site:$root/src:$root/tests/support
else
  export PYTHONPATH=$root/src:$root/tests/support
fi
export PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
export STNBENCH_RUNS=${STNBENCH_RUNS:-/tmp/stnbench/runs} STNBENCH_DATA=${STNBENCH_DATA:-/tmp/stnbench/data}
mkdir -p "$STNBENCH_RUNS" "$STNBENCH_DATA"

say "facts"
nvidia-smi --query-gpu=index,uuid,name,driver_version,memory.total,mig.mode.current,power.limit --format=csv
say "signs are drawn in the background"
nice "$PYTHON" benchmarks/gpu.py --draw > "$OUT/drawing.log" 2>&1 &
drawing=$!
say "tests that need a GPU"
timeout 170 "$PYTHON" -m pytest -q --noconftest -o addopts=--import-mode=importlib -o filterwarnings= -p no:cacheprovider \
  -m cuda tests/cuda 2>&1 | tail -60 | tee "$OUT/pytest_cuda.txt"
wait "$drawing"; tail -n 3 "$OUT/drawing.log"
say "measurements"
timeout "$(left)" "$PYTHON" benchmarks/gpu.py --limit "$(($(left) - 15))" --out "$OUT/gpu.md" | tee "$OUT/gpu.jsonl"

say "the configurations of 2015"
end=$(($(date +%s) + sweep_s))
for name in baseline locnet_sizes normalisation training_images multiple_st idsia_st locnet_large idsia_multiple_st; do
  now=$(date +%s); [ $((end - now)) -gt 20 ] || break
  (cd "$root" && STNBENCH_COMPUTE=${STNBENCH_COMPUTE:-channels_last,cuda_graphs} timeout $((end - now + 30)) \
    "$PYTHON" -m stnbench.sweep "$name" scale=paper_fast dataset=signs --slots-per-gpu "${SLOTS_PER_GPU:-4}" --no-mlflow \
    --budget $((end - now - 10))s 2>&1 | tail -n 25)
done | tee "$OUT/sweeps_2015.txt"
cp "$STNBENCH_RUNS"/*.db "$OUT"/ 2> /dev/null
say "done"
