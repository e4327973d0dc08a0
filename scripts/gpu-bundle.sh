#!/usr/bin/env bash
# Packs the program and the kernels' tests for a GPU host that has neither Rust nor a network.
set -euo pipefail

# Bundles are carried to hosts that take no more.
max_mib=60

usage() {
  cat <<'EOF'
usage: scripts/gpu-bundle.sh FEATURES [FOLDER]

Builds the release binary and the kernels' tests with the cargo features FEATURES (cuda, vulkan, "cuda,wgpu" ...) beside
the default ones, and puts stripped, compressed copies with a run.sh into FOLDER (dist by default). On the GPU host:

  bash dist/run.sh --help

The host needs a glibc at least as new as the one here.
EOF
}

fail() {
  echo "error: $1" >&2
  exit "${2:-1}"
}

case "${1:-}" in
  -h | --help)
    usage
    exit 0
    ;;
esac
if [ $# -lt 1 ] || [ $# -gt 2 ] || [ -z "$1" ] || [ "${1#-}" != "$1" ]; then
  usage >&2
  exit 2
fi
features=$1
root=$(cd "$(dirname "$0")/.." && pwd)
folder=${2:-$root/dist}
for tool in cargo strip xz; do
  command -v "$tool" >/dev/null || fail "$tool is not installed (Debian: apt-get install binutils xz-utils)"
done
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$root"

# One call, so that both share their dependencies.
cargo build --release -p elmo -p elmo-kernels --features "$features" --bin elmo --test parity \
  --message-format=json-render-diagnostics >"$work/messages.json" ||
  fail "the build with the features '$features' failed"

# The executable of the target of this kind and name.
executable() {
  grep -F '"reason":"compiler-artifact"' "$work/messages.json" |
    grep -F "\"kind\":[\"$1\"]" |
    sed -n "s/.*\"name\":\"$2\".*\"executable\":\"\([^\"]*\)\".*/\1/p" |
    tail -n 1
}

pack() {
  local name=$1 path=$2
  [ -f "$path" ] || fail "cargo named no executable for $name"
  strip -o "$work/$name" "$path"
  xz -9 --threads=0 --stdout "$work/$name" >"$folder/$name.xz"
  chmod a+r "$folder/$name.xz"
}

pack elmo "$(executable bin elmo)"
pack parity "$(executable test parity)"
cp scripts/gpu-run.sh "$folder/run.sh"

bytes=$(cat "$folder/elmo.xz" "$folder/parity.xz" "$folder/run.sh" | wc -c)
mib=$(((bytes + 1048575) / 1048576))
[ "$mib" -le "$max_mib" ] || fail "the bundle takes $mib MiB, more than $max_mib: build fewer features"
echo "$folder: $mib MiB for the features $features; on the GPU host: bash run.sh"
