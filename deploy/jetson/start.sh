#!/bin/sh
# What the container runs: the engine first, once, then `edge-ser` with the words it was given.
set -eu

device=$(dirname "$(readlink -f "$0")")
case ${1:-} in
  listen | serve)
    "$device/build_engine.sh"
    exec edge-ser "$@" --model "${EDGE_SER_MODEL:-mdat-int8}" --provider "${EDGE_SER_PROVIDER:-auto}"
    ;;
  smoke-test)
    shift
    exec python "$device/smoke_test.py" "$@"
    ;;
esac
exec edge-ser "$@"
