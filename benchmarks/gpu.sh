#!/usr/bin/env bash
# Speed on a GPU, in less than eight minutes: the training step of RT-DETR-R50, deformable sampling, and waiting for
# images. Numbers go into $OUT, docs/speed where it is not set.
#
#     bash benchmarks/gpu.sh          on a GPU
#     bash benchmarks/gpu.sh cpu      tiny sizes on the CPU, to see that the script runs; nothing is kept
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2
export PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}"

device="${1:-cuda}"
failed=0

# Each benchmark writes its numbers when it is done, so that one that takes too long costs its own alone.
measure() { # SECONDS NAME PRECISIONS SIZES...
    local seconds="$1" name="$2" precisions="$3"
    shift 3
    timeout "$seconds" python -m benchmarks --only "$name" --device "$device" --precision "$precisions" \
        "${options[@]}" -- "$@" || failed=1
}

if [ "$device" = cpu ]; then
    options=(--quick)
    measure 120 rtdetr_against_transformers bfloat16 --depth 50 --image-size 160 --batch 1 --objects 2
    measure 60 deformable_sampling float32,bfloat16 --size 64 64 --without-compile
    measure 120 training_input bfloat16 --depth 18 --image-size 64 --batch 2 --workers 1 --images 8 --steps 2
else
    options=(--out "${OUT:-docs/speed}")
    measure 170 rtdetr_against_transformers bfloat16 --depth 50 --image-size 640 --batch 8 --rounds 20
    measure 120 deformable_sampling float32,bfloat16 --size 640 640 --batch 8 --rounds 50
    measure 180 training_input bfloat16 --depth 50 --image-size 640 --batch 8 --workers 8 --images 400
fi
exit "$failed"
