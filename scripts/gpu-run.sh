#!/usr/bin/env bash
# On a GPU host: runs the kernels' tests and elmo bench from the bundle that this lies in. No toolchain is needed.
set -euo pipefail

usage() {
  cat <<'EOF'
usage: run.sh [--out FOLDER] [--no-tests] [SHAPE...] [-- OPTION...]

Runs the kernels' tests, then `elmo bench` on every SHAPE (amazontitles670k by default), each in a process of its own. What
follows -- goes to `elmo bench`, such as --device cuda:1 --task step.

  --out FOLDER   where bench.csv and the logs go; beside this script by default
  --no-tests     only measure

The last lines are a table. The exit code is 1 if a test or a shape failed.
EOF
}

fail() {
  echo "error: $1" >&2
  exit "${2:-1}"
}

here=$(cd "$(dirname "$0")" && pwd)
out=$here
tests=yes
shapes=()
while [ $# -gt 0 ]; do
  case "$1" in
    -h | --help)
      usage
      exit 0
      ;;
    --out)
      [ $# -ge 2 ] || fail "--out needs a folder" 2
      out=$2
      shift
      ;;
    --no-tests) tests=no ;;
    --)
      shift
      break
      ;;
    -*)
      usage >&2
      exit 2
      ;;
    *) shapes+=("$1") ;;
  esac
  shift
done
[ ${#shapes[@]} -gt 0 ] || shapes=(amazontitles670k)

mkdir -p "$out"
out=$(cd "$out" && pwd)
csv=$out/bench.csv
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

unpack() {
  [ -f "$here/$1.xz" ] || fail "$here/$1.xz is missing: copy the whole bundle"
  if command -v xz >/dev/null; then
    xz --decompress --stdout "$here/$1.xz" >"$work/$1"
  elif command -v python3 >/dev/null; then
    python3 -c 'import lzma, shutil, sys; shutil.copyfileobj(lzma.open(sys.argv[1]), sys.stdout.buffer)' \
      "$here/$1.xz" >"$work/$1"
  else
    fail "neither xz nor python3 is here to unpack the bundle"
  fi
  chmod +x "$work/$1"
}

unpack elmo
"$work/elmo" --version >/dev/null || fail "the program does not start here; was it built against a newer glibc?"

failed=0
tested="not run"
if [ "$tests" = yes ]; then
  unpack parity
  code=0
  "$work/parity" >"$out/parity.log" 2>&1 || code=$?
  # A test binary that breaks off prints no result.
  result=$(sed -n 's/^test result: [A-Za-z]*\. \([0-9]* passed; [0-9]* failed\).*/\1/p' "$out/parity.log" | tail -n 1)
  tested=${result:-"broken off"}
  if [ "$code" -ne 0 ]; then
    failed=1
    tested="$tested (exit code $code, see parity.log)"
    grep '^test .*FAILED$' "$out/parity.log" || tail -n 20 "$out/parity.log"
  fi
fi

# The line of the table for a shape, from the rows on standard input below the file's header.
row() {
  awk -F, -v shape="$1" '
    # Columns are counted from the end: the name of a processor may hold commas.
    NR == 1 { for (i = 1; i <= NF; i++) back[$i] = NF - i; next }
    $(NF - back["kernel"]) == "all" {
      device = $2 ": " $3
      median = $(NF - back["median_ms"])
      if ($(NF - back["task"]) == "step") {
        step = median
        range = $(NF - back["p10_ms"]) "-" $(NF - back["p90_ms"])
      } else {
        search = median
      }
      peak = $(NF - back["peak_mib"])
    }
    function known(text) { return text == "" ? "-" : text }
    END {
      printf "%-20s%-36s%12s%22s%12s%12s\n",
        shape, device, known(step), known(range), known(search), known(peak)
    }'
}

lines=()
for shape in "${shapes[@]}"; do
  before=1
  [ ! -f "$csv" ] || before=$(wc -l <"$csv")
  # A process each: the memory of one shape is not that of the next.
  if "$work/elmo" bench --shape "$shape" --csv "$csv" "$@" 2>&1 | tee "$out/$shape.log"; then
    lines+=("$({ head -n 1 "$csv"; tail -n +"$((before + 1))" "$csv"; } | row "$shape")")
  else
    failed=1
    lines+=("$(printf '%-20s%s' "$shape" "failed, see $shape.log")")
  fi
  echo
done

printf 'tests: %s\n' "$tested"
printf '%-20s%-36s%12s%22s%12s%12s\n' shape device "step ms" "p10-p90" "top-k ms" "peak MiB"
printf '%s\n' "${lines[@]}"
exit "$failed"
