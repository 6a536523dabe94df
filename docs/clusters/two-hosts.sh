#!/bin/bash
# Predict any number of images on this host and another one:
#
#   bash two-hosts.sh OTHER_HOST MODEL IMAGES RESULTS
#
# Both hosts have Boxwright with the extra `ray`, of the same version, under the same path, and see MODEL, IMAGES and
# RESULTS under the same absolute paths, as on a shared disk. Run it again after whatever ended it: it goes on.
set -euo pipefail
other=$1 model=$2 images=$3 results=$4

ray=$(command -v ray)
address=${ADDRESS:-$(hostname -I | awk '{print $1}')}
port=${PORT:-6379}
export RAY_ADDRESS=$address:$port RAY_USAGE_STATS_ENABLED=0

# Nobody else may join: Ray asks for what this file holds, which all hosts can read.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=${results%/}.token
mkdir -p "$(dirname "$results")"
(umask 077 && od -An -N32 -tx1 /dev/urandom | tr -d ' \n' > "$RAY_AUTH_TOKEN_PATH")

# Each ends with this script, and takes its workers with it.
trap 'kill $(jobs -p) 2>/dev/null; wait; rm -f "$RAY_AUTH_TOKEN_PATH"' EXIT
"$ray" start --head --node-ip-address="$address" --port="$port" --include-dashboard=false --block &
until "$ray" health-check --address "$RAY_ADDRESS" 2>/dev/null; do kill -0 $!; sleep 1; done
ssh -tt "$other" "RAY_USAGE_STATS_ENABLED=0 RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH='$RAY_AUTH_TOKEN_PATH' \
  $ray start --address=$RAY_ADDRESS --block" </dev/null &

# It begins here, and takes the other host as soon as that has joined.
boxwright predict "$model" "$images" --results "$results" --engine ray --resume
