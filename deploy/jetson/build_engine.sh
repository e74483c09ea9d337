#!/bin/sh
# Build the TensorRT engine of the model that is to run, unless it is there already. It stays in $EDGE_SER_ENGINES.
# Where there is no TensorRT, or the engine is out of budget, `auto` goes on without one and `tensorrt` is an error.
set -eu

home=$(dirname "$(dirname "$(readlink -f "$0")")")
provider=${EDGE_SER_PROVIDER:-auto}

case $provider in
  auto | tensorrt) ;;
  *) exit 0 ;;
esac
if [ "$provider" = auto ] && ! "$home/bin/python" -c 'import tensorrt' 2>/dev/null; then
  echo "edge-ser: no TensorRT here, so no engine is built" >&2
  exit 0
fi
if "$home/bin/python" "$home/device/export/build_trt.py" "${EDGE_SER_MODEL:-mdat-int8}" \
  --precision "${EDGE_SER_PRECISION:-int8}" >&2; then
  exit 0
fi
[ "$provider" = auto ]
