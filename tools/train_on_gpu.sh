#!/usr/bin/env bash
# Trains a student on whatever accelerate finds (a GPU, several, a CPU) out of packed inputs, one slice a call:
#
#   tools/train_on_gpu.sh train INPUTS OUT     begin, or go on with, the run; OUT gets checkpoint, metrics and state
#   tools/train_on_gpu.sh sweep INPUTS OUT     a short run for each of SWEEP_RATES; OUT/sweep.txt compares them
#
# INPUTS is what tools/pack_inputs.py packed. Each call ends by itself after SLICE_SECONDS, saves, and is gone on with by
# the same call; on a machine that does not have WORK any more, with FROM naming a copy of OUT. No file in OUT is larger
# than LIMIT bytes. Nothing has to be installed but the modules that are looked for below. Every setting is a variable:
#
#   RATE=3e-3 EPOCHS=30 tools/train_on_gpu.sh train inputs.zip out
set -euo pipefail

# Large batches: fewer, better gradients want a higher rate, and a warm-up that is short beside the run. Which rate is
# found by the sweep; the one here is where it starts from (that of small batches, times the square root of the ratio).
: "${BATCH:=256}" "${RATE:=4e-3}" "${WARMUP:=300}" "${SCHEDULE:=cosine}" "${EPOCHS:=30}" "${OPTIMIZER:=muon}"
: "${TEMPERATURE:=2}" "${MSE_WEIGHT:=0.05}" "${PRECISION:=bf16}" "${SEED:=0}"
: "${EVALUATE_EVERY:=1000}" "${SAVE_EVERY:=500}" "${LOG_EVERY:=50}"
: "${SWEEP_RATES:=2e-3 4e-3 8e-3}" "${SWEEP_UPDATES:=300}" "${SWEEP_WARMUP:=100}"
: "${SLICE_SECONDS:=480}" "${LIMIT:=16000000}" "${WORK:=gpu-run}" "${FROM:=}" "${PYTHON:=python3}"
# More options of distill (--init, sizes), and how several processes are started, for example:
# LAUNCH="accelerate launch --num_processes 4 -m qa_edge"
: "${EXTRA:=}" "${LAUNCH:=$PYTHON -m qa_edge}"

if [ $# -ne 3 ] || { [ "$1" != train ] && [ "$1" != sweep ]; }; then
    echo "usage: train_on_gpu.sh train|sweep INPUTS OUT" >&2
    exit 2
fi
mode=$1 inputs=$2 out=$3
here=$(cd "$(dirname "$0")/.." && pwd)
export PYTHONPATH="$here:$here/runtime:$here/export${PYTHONPATH:+:$PYTHONPATH}"
mkdir -p "$WORK" "$out"

$PYTHON - <<'EOF'
import importlib.util, sys
lacking = [name for name in ("numpy", "torch", "safetensors", "accelerate", "click") if not importlib.util.find_spec(name)]
if lacking:
    sys.exit(f"train_on_gpu: {', '.join(lacking)} missing; install what is named, or set PYTHON to one that has it")
import torch
found = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
print(f"torch {torch.__version__}, {', '.join(found) or 'no GPU: this is the CPU'}")
EOF

# The packed file is unpacked once; another one in its place is noticed.
hash=$($PYTHON -c 'import sys; from qa_edge_runtime.files import sha256_file as f; print(f(sys.argv[1]))' "$inputs")
if [ "$(cat "$WORK/inputs.sha256" 2>/dev/null)" != "$hash" ]; then
    $PYTHON "$here/tools/pack_inputs.py" unpack "$inputs" -o "$WORK/inputs" --force
    echo "$hash" >"$WORK/inputs.sha256"
fi

# distil RUN RATE WARMUP OPTION...: as far as the slice's time reaches.
distil() {
    local run=$1 rate=$2 warmup=$3
    shift 3
    local minutes
    minutes=$(awk -v left="$((SLICE_SECONDS - SECONDS))" 'BEGIN {print (left > 1 ? left : 1) / 60}')
    # shellcheck disable=SC2086
    $LAUNCH distill --features "$WORK/inputs/features" --labels "$WORK/inputs/labels" --batch-size "$BATCH" \
        --rate "$rate" --warmup "$warmup" --schedule "$SCHEDULE" --optimizer "$OPTIMIZER" --temperature "$TEMPERATURE" \
        --mse-weight "$MSE_WEIGHT" --precision "$PRECISION" --seed "$SEED" --max-minutes "$minutes" -o "$run" \
        "$@" $EXTRA 2>&1 | tee -a "$WORK/train.log"
}

# Run and state as files to carry; word vectors are those of the inputs.
copy_out() {
    [ -d "$WORK/run" ] || return 0
    tar -C "$WORK" --exclude=run/state --exclude=run/vectors.safetensors --exclude=run/tensorboard \
        -cf "$out/checkpoint.tar" run train.log
    rm -rf -- "$out/state"
    [ ! -d "$WORK/run/state" ] || cp -r "$WORK/run/state" "$out/state"
    local large
    large=$(find "$out" -type f -size "+${LIMIT}c")
    [ -z "$large" ] || { echo "train_on_gpu: larger than $LIMIT bytes: $large" >&2 && return 1; }
}

if [ "$mode" = sweep ]; then
    for rate in $SWEEP_RATES; do
        distil "$WORK/sweep-$rate" "$rate" "$SWEEP_WARMUP" --epochs 1 --least-updates "$SWEEP_UPDATES" \
            --max-steps "$SWEEP_UPDATES" --evaluate-every "$SWEEP_UPDATES" --log-every "$SWEEP_UPDATES" \
            --save-every "$SWEEP_UPDATES"
    done
    # shellcheck disable=SC2086
    $PYTHON - "$WORK" $SWEEP_RATES <<'EOF' | tee "$out/sweep.txt"
import json, pathlib, sys
print(f"{'rate':>8} {'updates':>8} {'loss':>9} {'raw F1':>7} {'mean F1':>8} {'questions/s':>12}")
for rate in sys.argv[2:]:
    lines = (pathlib.Path(sys.argv[1]) / f"sweep-{rate}" / "metrics.jsonl").read_text().splitlines()
    last = {line["kind"]: line for line in map(json.loads, lines)}
    told, scored = last.get("training", {}), last.get("evaluation", {})
    row = [told.get("step"), told.get("loss"), scored.get("raw_f1"), scored.get("ema_f1")]
    speed = round(told["questions_an_hour"] / 3600, 1) if told else None
    print("{:>8} {:>8} {:>9} {:>7} {:>8} {:>12}".format(rate, *("-" if value is None else value for value in (*row, speed))))
EOF
    exit
fi

if [ ! -d "$WORK/run" ] && [ -n "$FROM" ]; then
    tar -C "$WORK" -xf "$FROM/checkpoint.tar"
    cp -r "$FROM/state" "$WORK/run/state"
fi
# Also after an error: the state of the last save is worth having.
trap 'status=$?; copy_out || status=1; exit $status' EXIT
distil "$WORK/run" "$RATE" "$WARMUP" --epochs "$EPOCHS" --evaluate-every "$EVALUATE_EVERY" --log-every "$LOG_EVERY" \
    --save-every "$SAVE_EVERY"
