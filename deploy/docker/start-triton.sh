#!/bin/sh
# Start Triton with its control interfaces behind a key that is new at each start: nobody has to keep it, and whoever
# may load models reads it from the volume that the `train` service shares. The arguments are tritonserver's.
set -eu

key_file=${TRITON_ADMIN_KEY_FILE:-/run/triton/admin-key}
controls=model-repository,shared-memory,trace,logging
key=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')

rm -f "$key_file"
(umask 027 && printf '%s' "$key" >"$key_file")

exec tritonserver \
    "--grpc-restricted-protocol=$controls:admin-key=$key" \
    "--http-restricted-api=$controls:admin-key=$key" \
    "$@"
