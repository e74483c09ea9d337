#!/usr/bin/env bash
# Install edge-ser on a Jetson without docker, update it, or take it away. From a checkout, as root:
#
#   sudo deploy/jetson/install.sh              install or update, and start the service
#   sudo deploy/jetson/install.sh --help
#
# Each installation is a folder of its own in /opt/edge-ser/releases; `current` is switched only after the new one has
# passed smoke_test.py, and the one before it stays.
set -euo pipefail

PREFIX=/opt/edge-ser
SETTINGS=/etc/edge-ser
UNIT=/etc/systemd/system/edge-ser.service
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
CHECKOUT=$(cd "$HERE/../.." && pwd)

usage() {
  cat <<'TEXT'
usage: sudo deploy/jetson/install.sh [--cpu] [--wheel FILE] [--no-service]
       sudo deploy/jetson/install.sh --roll-back | --uninstall [--purge]

  --cpu          no TensorRT, even where JetPack has it
  --wheel FILE   this wheel, not the checkout's own code
  --no-service   the command only
  --roll-back    back to the installation before this one
  --uninstall    take everything away but voices, engines and settings
  --purge        those, too, and the user edge-ser
TEXT
}

say() { echo "install: $*" >&2; }
fail() {
  say "$*"
  exit 1
}

list_releases() { find "$PREFIX/releases" -mindepth 1 -maxdepth 1 -type d; }

has_systemd() { [ -d /run/systemd/system ]; }

# The major version of Jetson Linux: 36 for JetPack 6, 38 and 39 for JetPack 7; nothing on another machine.
jetson_linux() { sed -n 's/^# R\([0-9]*\) .*/\1/p' /etc/nv_tegra_release 2>/dev/null || true; }

install_packages() {
  local packages=(python3 python3-venv libportaudio2 ca-certificates)
  if [ "$use_gpu" = yes ]; then packages+=(python3-libnvinfer); fi
  if ! dpkg -s "${packages[@]}" >/dev/null 2>&1; then
    say "installing ${packages[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
  fi
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    fail "got $(python3 --version); need Python 3.10 or newer, which JetPack 6 has"
}

make_user() {
  id edge-ser >/dev/null 2>&1 ||
    useradd --system --user-group --home-dir /var/lib/edge-ser --shell /usr/sbin/nologin edge-ser
  local group
  for group in audio video render; do
    if getent group "$group" >/dev/null; then usermod --append --groups "$group" edge-ser; fi
  done
}

# In a copy: a build in the checkout leaves files of root there.
build_wheel() {
  local copy=$1/source
  mkdir -p "$copy" "$1/wheel"
  cp -r "$CHECKOUT"/{pyproject.toml,README.md,LICENSE,edge_ser} "$copy"
  "$release/bin/pip" wheel --quiet --no-deps --wheel-dir "$1/wheel" "$copy"
  wheel=$(echo "$1"/wheel/edge_ser-*.whl)
}

install_release() {
  release=$PREFIX/releases/$(date -u +%Y%m%dT%H%M%SZ)
  local work
  work=$(mktemp -d)
  # Expanded now: the two are unknown when the trap runs.
  # shellcheck disable=SC2064
  trap "rm -rf '$work' '$release'" EXIT
  say "installing into $release"
  mkdir -p "$PREFIX/releases"
  python3 -m venv "$release"
  "$release/bin/pip" install --quiet --upgrade pip
  [ -n "$wheel" ] || build_wheel "$work"
  "$release/bin/pip" install --quiet "${wheel}[serve]"
  mkdir -p "$release/device/examples"
  cp "$HERE"/{build_engine.sh,smoke_test.py,event_comparison.py} "$release/device/"
  cp "$CHECKOUT/examples/conversation.flac" "$release/device/examples/"
  if [ "$use_gpu" = yes ]; then install_tensorrt; fi
  say "checking it"
  EDGE_SER_PROVIDER=cpu "$release/bin/python" "$release/device/smoke_test.py" | sed '$d' >&2 ||
    fail "the check failed; what was installed before is untouched"
  rm -rf "$work"
  trap - EXIT
}

# JetPack's own package, and of the system's Python packages only this one: its numpy is older than the one needed.
install_tensorrt() {
  local bindings='cuda-bindings>=12.8,<13' found
  if [ "$(jetson_linux)" -ge 38 ]; then bindings='cuda-bindings>=13,<14'; fi
  "$release/bin/pip" install --quiet 'onnx>=1.16' "$bindings"
  cp -r "$CHECKOUT/export" "$release/device/"
  found=$(/usr/bin/python3 -c 'import importlib.util as u; print(u.find_spec("tensorrt").submodule_search_locations[0])')
  ln -s "$found" "$(echo "$release"/lib/python3*/site-packages)/"
}

switch_to() {
  ln -sfn "$1" "$PREFIX/current.new"
  mv -T "$PREFIX/current.new" "$PREFIX/current"
  ln -sfn "$PREFIX/current/bin/edge-ser" /usr/local/bin/edge-ser
  say "now running $1"
}

forget_old_releases() {
  local releases
  mapfile -t releases < <(list_releases | sort -r)
  local old
  for old in "${releases[@]:2}"; do rm -rf "$old"; done
}

install_service() {
  install -d -m 0755 "$SETTINGS"
  [ -e "$SETTINGS/edge-ser.conf" ] || install -m 0644 "$HERE/edge-ser.conf" "$SETTINGS/"
  install -m 0644 "$HERE/edge-ser.service" "$UNIT"
  rm -rf "$UNIT.d"
  if [ "$use_gpu" = yes ]; then install -D -m 0644 "$HERE/gpu.conf" "$UNIT.d/gpu.conf"; fi
  if has_systemd; then
    systemctl daemon-reload
    systemctl enable --quiet edge-ser
    systemctl restart --no-block edge-ser
    say "started; the first start builds the engine. Type: journalctl -u edge-ser -f"
  else
    say "no systemd runs here, so edge-ser.service is installed but not started"
  fi
}

roll_back() {
  local now before
  now=$(readlink -f "$PREFIX/current")
  before=$(list_releases | sort | grep -Fxv "$now" | tail -n 1) || true
  [ -n "$before" ] || fail "there is no other installation in $PREFIX/releases"
  switch_to "$before"
  if has_systemd && [ -e "$UNIT" ]; then systemctl restart --no-block edge-ser; fi
}

uninstall() {
  if has_systemd && [ -e "$UNIT" ]; then systemctl disable --now --quiet edge-ser; fi
  rm -rf "$UNIT" "$UNIT.d" "$PREFIX" /usr/local/bin/edge-ser
  if has_systemd; then systemctl daemon-reload; fi
  if [ "$purge" = yes ]; then
    rm -rf "$SETTINGS" /var/lib/edge-ser /var/cache/edge-ser
    if id edge-ser >/dev/null 2>&1; then userdel edge-ser; fi
    say "taken away, with voices, engines, settings and the user"
  else
    say "taken away; voices, engines and settings stay (--purge takes them)"
  fi
}

use_gpu=auto service=yes action=install purge=no wheel='' release=''
while [ $# -gt 0 ]; do
  case $1 in
    --cpu) use_gpu=no ;;
    --wheel)
      wheel=$(readlink -f "${2:?--wheel needs a file}")
      [ -f "$wheel" ] || fail "there is no file $2"
      shift
      ;;
    --no-service) service=no ;;
    --roll-back) action=roll_back ;;
    --uninstall) action=uninstall ;;
    --purge) purge=yes ;;
    --help | -h)
      usage
      exit 0
      ;;
    *)
      usage >&2
      exit 2
      ;;
  esac
  shift
done
[ "$(id -u)" = 0 ] || fail "got an ordinary user; need root. Type: sudo $0"

case $action in
  roll_back) roll_back ;;
  uninstall) uninstall ;;
  install)
    if [ "$use_gpu" = auto ]; then
      use_gpu=no
      if [ -n "$(jetson_linux)" ]; then use_gpu=yes; fi
    fi
    install_packages
    make_user
    install_release
    switch_to "$release"
    forget_old_releases
    if [ "$service" = yes ]; then install_service; fi
    ;;
esac
