#!/usr/bin/env bash
# Usage: tools/dist_test.sh CONFIG CHECKPOINT NUM_GPUS [arguments of tools/test.py]
set -eu
CONFIG=$1
CHECKPOINT=$2
GPUS=$3
FOUND=$(python -c 'import torch; print(torch.cuda.device_count())')
if [ "$FOUND" -lt "$GPUS" ]; then
    echo "error: NUM_GPUS=$GPUS, but this machine has $FOUND: ask for at most as many;" \
        "without a GPU, or on one, use tools/test.py;" \
        "processes on CPUs are started by torchrun tools/test.py ... --launcher pytorch" >&2
    exit 1
fi
torchrun \
    --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" \
    --nproc_per_node="$GPUS" \
    "$(dirname "$0")/test.py" "$CONFIG" "$CHECKPOINT" --launcher pytorch "${@:4}"
