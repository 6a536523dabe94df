#!/bin/bash
#SBATCH --job-name=boxwright
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --time=12:00:00
#SBATCH --requeue
#
# Predict any number of images on the nodes of a Slurm job:
#
#   sbatch slurm.sh MODEL IMAGES RESULTS
#
# Give absolute paths on a shared disk. With GPUs, add `#SBATCH --gpus-per-node=N`. A job that is requeued, or submitted
# again after its time was over, goes on with the shards that are missing.
set -euo pipefail
model=$1 images=$2 results=$3

mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
step=(srun --nodes=1 --ntasks=1 --overlap)
address=$("${step[@]}" --nodelist="${hosts[0]}" hostname -I | awk '{print $1}')
port=$((20000 + SLURM_JOB_ID % 10000))
export RAY_ADDRESS=$address:$port RAY_USAGE_STATS_ENABLED=0

# Nobody else may join: Ray asks for what this file holds, which all hosts can read.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=${results%/}.token
mkdir -p "$(dirname "$results")"
(umask 077 && od -An -N32 -tx1 /dev/urandom | tr -d ' \n' > "$RAY_AUTH_TOKEN_PATH")

trap 'kill $(jobs -p) 2>/dev/null; wait; rm -f "$RAY_AUTH_TOKEN_PATH"' EXIT
"${step[@]}" --nodelist="${hosts[0]}" ray start --head --node-ip-address="$address" --port="$port" \
  --include-dashboard=false --block &
until ray health-check --address "$RAY_ADDRESS" 2>/dev/null; do kill -0 $!; sleep 1; done
for host in "${hosts[@]:1}"; do
  "${step[@]}" --nodelist="$host" ray start --address="$RAY_ADDRESS" --block &
done

boxwright predict "$model" "$images" --results "$results" --engine ray --resume
