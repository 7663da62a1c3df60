#!/usr/bin/env bash
# Every number about GPUs that the documents leave open, on a machine with one GPU, in some ten minutes:
#   benchmarks/gpu.sh                     # tables in docs/results/gpu/
#   DEVICE=1 LIMIT=300 benchmarks/gpu.sh FOLDER
# A part whose table is there is not measured again, so an interrupted run goes on where it stopped; one that fails
# or takes more than LIMIT seconds leaves its log, and the others are measured all the same. Beside each table lies
# how busy the GPU was meanwhile, once a second, and the table's last line has the mean.
set -uo pipefail
cd "$(dirname "$0")/.."
folder=${1:-docs/results/gpu} device=${DEVICE:-0} limit=${LIMIT:-180} quick=${QUICK:+--quick}
mkdir -p "$folder"
missing=()

part() { # NAME ARGUMENTS...: `python -m ARGUMENTS` writes NAME.md
    local name=$1 table="$folder/$1.md" busy="$folder/$1.csv" watcher=
    shift
    [ -e "$table" ] && return
    echo "$name: python -m $*"
    if command -v nvidia-smi >/dev/null; then
        nvidia-smi -i "$device" --query-gpu=utilization.gpu,utilization.memory,memory.used,power.draw \
            --format=csv,nounits -l 1 >"$busy" &
        watcher=$!
    fi
    { printf '`python -m %s`\n\n' "$*" && timeout "$limit" python -m "$@" 2>"$folder/$name.log"; } >"$table.part"
    local code=$?
    [ -n "$watcher" ] && kill "$watcher" && wait "$watcher" 2>/dev/null
    if [ "$code" -ne 0 ]; then
        missing+=("$name (code $code: $(tail -n 1 "$folder/$name.log"))")
        return
    fi
    [ -s "$busy" ] && awk -F, 'NR > 1 {sum += $1} END {if (NR > 1) printf "\nGPU busy %.0f%% of the time\n", sum / (NR - 1)}' \
        "$busy" >>"$table.part"
    mv "$table.part" "$table"
    rm -f "$folder/$name.log"
}

# shellcheck disable=SC2086 # --quick, or nothing
{
    part steps benchmarks.gpu --part steps --device "$device" $quick
    part nms benchmarks.gpu --part nms --device "$device" $quick
    part tensorrt benchmarks.gpu --part tensorrt --device "$device" $quick
    part spd benchmarks.spd --device "$device" --batch-size 32 --train-batch 64 --no-onnx --no-memory $quick
    part spectral benchmarks.spectral --device "$device" $quick
}
small=${QUICK:+--images 8 --rounds 1 --step-batch 2 --batch-size 4 --workers 0 --cfg yolov5n}
# shellcheck disable=SC2086
{
    part loader benchmarks.train --part loader --imgsz 640 --device "$device" ${small:---workers 0 4 8 16 --images 512}
    part step benchmarks.train --part step --imgsz 640 --device "$device" ${small:---step-batch 64 --rounds 10}
    part epoch benchmarks.train --part epoch --imgsz 640 --device "$device" \
        ${small:---step-batch 64 --workers 16 --images 2048}
}

echo "tables in $folder: $(find "$folder" -name '*.md' | sort | xargs -r -n 1 basename | tr '\n' ' ')"
if [ ${#missing[@]} -gt 0 ]; then
    printf 'not measured: %s\n' "${missing[@]}" >&2
    exit 1
fi
