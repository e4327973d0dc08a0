#!/usr/bin/env bash
# Compiles every CUDA kernel on a machine without a GPU, and fails where ptxas could not keep a promise of the kernel.
set -euo pipefail

# NVRTC compiles what CubeCL generates, against the headers of the runtime; nvcc's package has ptxas. One minor version of
# CUDA, since NVRTC and ptxas are to agree.
packages=(
  nvidia-cuda-nvrtc-cu12==12.8.93
  nvidia-cuda-nvcc-cu12==12.8.93
  nvidia-cuda-runtime-cu12==12.8.90
  nvidia-cuda-cccl-cu12==12.8.90
)
capabilities="90 89 80"
wgmma=1
variants=0

usage() {
  cat <<'EOF_USAGE'
usage: scripts/check-cuda-kernels.sh [OPTION...] [EXECUTABLE]

Runs EXECUTABLE, which is the compiled example compile_kernels of elmo-kernels with the feature cuda (built in release mode
if none is named), once for each compute capability with a driver that executes nothing, and puts the PTX of every kernel
through ptxas. It prints a table (the most registers of a variant, bytes of spills and stack frames, and the waits that
ptxas has put among wgmma instructions by itself), and fails if a kernel of elmo

  - is not launched or does not compile,
  - spills registers or has a stack frame (a few words in some kernels of the encoder),
  - has its wgmma instructions serialized, its setmaxnreg ignored, or takes more registers by setmaxnreg than there are.

  --arch LIST      compute capabilities without their points (default "90 89 80")
  --variants       a line for each variant of a kernel
  --without-wgmma  9.0 may do without wgmma

Needs a C compiler and Python with pip, which fetches NVRTC and ptxas once (some 130 MB). Everything lies in
target/cuda-check; the PTX and what ptxas says of it stay in ptx-90 and so on there.
EOF_USAGE
}

fail() {
  echo "error: $1" >&2
  exit "${2:-1}"
}

executable=
while [ $# -gt 0 ]; do
  case "$1" in
    -h | --help)
      usage
      exit 0
      ;;
    --arch)
      [ $# -ge 2 ] || fail "--arch needs a list such as \"90 80\"" 2
      capabilities=${2//,/ }
      shift
      ;;
    --variants) variants=1 ;;
    --without-wgmma) wgmma=0 ;;
    -*)
      usage >&2
      exit 2
      ;;
    *)
      [ -z "$executable" ] || fail "more than one executable" 2
      executable=$1
      ;;
  esac
  shift
done
for capability in $capabilities; do
  [[ "$capability" =~ ^(80|89|90)$ ]] || fail "no compute capability $capability (80, 89, 90)" 2
done
[ -n "${capabilities// /}" ] || fail "no compute capability" 2

root=$(cd "$(dirname "$0")/.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
folder=$target/cuda-check
for tool in cc python3; do
  command -v "$tool" >/dev/null || fail "$tool is not installed (Debian: apt-get install build-essential python3-pip)"
done
if [ -z "$executable" ]; then
  # The program beside the kernels, for the features that other release builds give their dependencies.
  (cd "$root" && cargo build --release -p elmo -p elmo-kernels --features cuda --example compile_kernels) ||
    fail "the build failed"
  executable=$target/release/examples/compile_kernels
fi
[ -f "$executable" ] && [ -x "$executable" ] || fail "no executable $executable"
executable=$(cd "$(dirname "$executable")" && pwd)/$(basename "$executable")
mkdir -p "$folder"

# What pip has installed is named by its versions, so that others are installed anew.
nvidia=$folder/cuda-$(printf '%s\n' "${packages[@]}" | cksum | cut -d ' ' -f 1)
if [ ! -d "$nvidia" ]; then
  rm -rf "$folder"/cuda-* "$folder/installing"
  python3 -m pip install --quiet --disable-pip-version-check --no-warn-script-location --root-user-action=ignore \
    --no-deps --target "$folder/installing" "${packages[@]}" || fail "pip cannot install ${packages[*]}"
  # Headers in one folder, as CubeCL wants them.
  mkdir "$folder/installing/include"
  for headers in "$folder"/installing/nvidia/*/include; do
    cp -r "$headers/." "$folder/installing/include"
  done
  # The first name that is looked for, so that another NVRTC on this machine is not found before.
  ln -s libnvrtc.so.12 "$folder/installing/nvidia/cuda_nvrtc/lib/libnvrtc.so"
  mv "$folder/installing" "$nvidia"
fi
ptxas=$nvidia/nvidia/cuda_nvcc/bin/ptxas
"$ptxas" --version >/dev/null || fail "ptxas does not run on this machine"

mkdir -p "$folder/driver"
cc -O1 -Wall -shared -fPIC -o "$folder/driver/libcuda.so" "$root/scripts/stub_libcuda.c"

# Runs the program as on a device of compute capability $1, and puts what it loads into a folder.
compile() {
  rm -rf "$folder/ptx-$1"
  mkdir "$folder/ptx-$1"
  exec env ELMO_STUB_CAPABILITY="$1" ELMO_STUB_PTX="$folder/ptx-$1" CUDA_PATH="$nvidia" \
    LD_LIBRARY_PATH="$folder/driver:$nvidia/nvidia/cuda_nvrtc/lib" "$executable" >"$folder/run-$1.txt" 2>&1
}

# The names of elmo's kernels, without those of tests. Only Hopper has those of kernels/src/classifier/gpu/wgmma and of the hopper products.
kernels() {
  find "$root/kernels/src" -name '*.rs' | { [ "$1" = 90 ] && cat || grep -Ev "/classifier/gpu/wgmma/|/encoder/gpu/product/hopper.rs"; } | xargs awk '
    FNR == 1 { launched = 0 }
    /^#\[cfg\(test\)\]/ { nextfile }
    /^ *#\[cube\(.*launch/ { launched = 1 }
    launched && match($0, /fn [a-z0-9_]+/) { print substr($0, RSTART + 3, RLENGTH - 3); launched = 0 }
  ' | sort -u
}

# Judges what ptxas said of the kernels of one compute capability. An entry point is called NAME_HASH, or NAME_T_TYPE_HASH
# for a generic kernel; anything else is a kernel of Burn, which is not judged.
judge() {
  awk -v names="$(kernels "$1" | tr '\n' ' ')" -v all="$variants" -v need_wgmma="$wgmma" -v capability="$1" '
    BEGIN { split(names, list, " "); for (i in list) own[list[i]] = 1 }
    function begin() {
      file = FILENAME; sub(/.*\//, "", file); sub(/\.ptxas$/, "", file)
      name = file; sub(/_[0-9a-f]+-[0-9a-f]+$/, "", name)
      while (name != "" && !(name in own)) if (!sub(/_[^_]*$/, "", name)) name = ""
      registers = stack = spills = waits = threads = increased = decreased = 0; instructions = "-"; faults = ""
    }
    function fault(text) { if (index(faults, text) == 0) faults = faults (faults == "" ? "" : "; ") text }
    function end() {
      if (name == "") { foreign++; return }
      launched[name] = 1
      # Attention with the widest heads or the longest texts, and norms in BF16 on compute capability 8.0, keep a few
      # words of a unit in memory.
      few = name ~ /^(by_keys|by_queries|mma_gradients|mma_results|forward)$/
      if (spills > (few ? 64 : 0) || (stack > 0 && !few)) fault(spills " bytes spilled, a stack frame of " stack)
      if (registers == 0) fault("ptxas says nothing of its registers")
      # One warpgroup gives registers up, the others take them; a group that asks for more than are free waits for ever.
      groups = int(threads / 128)
      if (increased > 0 && (groups - 1) * increased + decreased > groups * registers)
        fault("setmaxnreg to " increased " and " decreased " in " groups " warpgroups that start with " registers)
      if (instructions == "wgmma") any_wgmma = 1
      if (faults == "") passed++
      else { failed++; failures = failures "FAILED sm_" capability " " file ".ptx: " faults "\n" }
      key = sprintf("%-20s %-12s", all ? file : name, instructions)
      count[key]++
      if (registers > most[key]) most[key] = registers
      spilled[key] += spills; framed[key] += stack; waited[key] += waits; bad[key] += faults != ""
    }
    FNR == 1 { if (file != "") end(); begin() }
    /^kind / { instructions = $2; next }
    /^\.maxntid/ { threads = $2 + 0 }
    /^setmaxnreg\.inc/ { if ($2 + 0 > increased) increased = $2 + 0; next }
    /^setmaxnreg\.dec/ { if ($2 + 0 > decreased) decreased = $2 + 0; next }
    /warpgroup\.wait is injected/ { waits++ }
    / bytes stack frame/ { stack += $1; spills += $5 + $9 }
    match($0, /Used [0-9]+ registers/) { split($0, words, /Used /); registers = words[2] + 0 }
    /Performance Loss|serialized|setmaxnreg|warning|error|fatal/ {
      text = $0; sub(/^ptxas (info|warning|error|fatal)[^:]*: */, "", text); fault(text)
    }
    END {
      if (file != "") end()
      width = all ? 56 : 20
      printf "%-" width "s %-12s %8s %9s %7s %6s %6s\n", "kernel", "instructions", "variants", "registers", "spilled", "stack", "waits"
      sort = "sort"
      for (key in count) {
        split(key, part, / +/)
        printf "%-" width "s %-12s %8d %9d %7d %6d %6d%s\n", part[1], part[2], count[key], most[key], spilled[key], \
          framed[key], waited[key], (bad[key] ? "  FAILED" : "") | sort
      }
      close(sort)
      for (name in own) if (!(name in launched)) {
        failed++; failures = failures "FAILED sm_" capability " " name ": never compiled\n"
      }
      if (capability == 90 && need_wgmma && !any_wgmma) {
        failed++; failures = failures "FAILED sm_90: no kernel has wgmma instructions\n"
      }
      printf "%s%d passed, %d failed; %d kernels of Burn ignored\n", failures, passed, failed, foreign
      exit failed > 0
    }
  ' "$folder/ptx-$1"/*.ptxas
}

# ptxas behind what the judge has to know of the PTX.
cat >"$folder/assemble.sh" <<'EOF_ASSEMBLE'
{
  if grep -q 'wgmma\.mma_async' "$3"; then
    echo "kind wgmma"
  elif grep -q 'mma\.sync' "$3"; then
    echo "kind mma"
  fi
  grep '^\.maxntid' "$3"
  grep -Eo 'setmaxnreg\.(inc|dec)[a-z0-9.]* +[0-9]+' "$3"
  "$1" -v -arch="$2" -o /dev/null "$3" || echo "fatal: ptxas exited with $?"
} >"${3%.ptx}.ptxas" 2>&1
exit 0
EOF_ASSEMBLE

processors=$(nproc)
declare -A running
# Processes in the background are not interrupted with the script.
trap '[ ${#running[@]} = 0 ] || kill "${running[@]}" 2>/dev/null || true' EXIT
for capability in $capabilities; do
  compile "$capability" &
  running[$capability]=$!
done
failed=
for capability in $capabilities; do
  arch=sm_$capability
  [ "$capability" != 90 ] || arch=sm_90a
  printf '\n== compute capability %s.%s (%s)\n' "${capability%?}" "${capability#?}" "$arch"
  wait "${running[$capability]}" || {
    echo "FAILED $arch: $executable says"
    failed+=" $arch"
  }
  unset "running[$capability]"
  cat "$folder/run-$capability.txt"
  files=$(find "$folder/ptx-$capability" -name '*.ptx')
  if [ -z "$files" ]; then
    echo "FAILED $arch: no kernel was compiled"
    failed+=" $arch"
    continue
  fi
  tr '\n' '\0' <<<"$files" | xargs -0 -n 1 -P "$processors" sh "$folder/assemble.sh" "$ptxas" "$arch"
  judge "$capability" || failed+=" $arch"
done
[ -z "$failed" ] || fail "kernels failed for$(printf '%s\n' $failed | sort -u | tr '\n' ' ' | sed 's/^/ /; s/ $//')"
