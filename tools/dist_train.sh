#!/usr/bin/env bash
# Usage: tools/dist_train.sh CONFIG NUM_GPUS [arguments of tools/train.py]
set -eu
CONFIG=$1
GPUS=$2
FOUND=$(python -c 'import torch; print(torch.cuda.device_count())')
if [ "$FOUND" -lt "$GPUS" ]; then
    echo "error: NUM_GPUS=$GPUS, but this machine has $FOUND: ask for at most as many;" \
        "without a GPU, or on one, use tools/train.py;" \
        "processes on CPUs are started by torchrun tools/train.py ... --launcher pytorch" >&2
    exit 1
fi
torchrun \
    --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" \
    --nproc_per_node="$GPUS" \
    "$(dirname "$0")/train.py" "$CONFIG" --launcher pytorch "${@:3}"
