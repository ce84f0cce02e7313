# shellcheck shell=bash
# Sourced by the other scripts: a virtual environment in .venv with the package and the extras in $1.
# Needs Python 3.11 or newer and nothing else; installs again only when pyproject.toml changed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

find_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3.12 python3.11 python3 python; do
    if [ -z "$candidate" ] || ! command -v "$candidate" >/dev/null 2>&1; then continue; fi
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "No Python 3.11 or newer found. Install one, or name it: PYTHON=/path/to/python $0" >&2
  exit 1
}

# glibc hands large buffers back to the kernel after every training step and faults them in again in
# the next one. Kept, and in huge pages, nano trains 1.3 to 1.4 times as fast on 2 CPU cores.
keep_memory() {
  local keep="glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184"
  export GLIBC_TUNABLES="${GLIBC_TUNABLES:-$keep:glibc.malloc.arena_max=1}"
}

setup() {
  local extras="$1" venv="${BUA_VENV:-.venv}" python stamp
  stamp="$(cksum pyproject.toml | cut -d' ' -f1) $extras"
  if [ ! -f "$venv/stamp-$extras" ] || [ "$(cat "$venv/stamp-$extras")" != "$stamp" ]; then
    python="$(find_python)"
    echo "Setting up $venv with $("$python" --version) (extras: ${extras:-none})" >&2
    [ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --upgrade pip
    case "$extras" in
      # The release whose CPU build the parity tests are run with.
      *parity*) "$venv/bin/python" -m pip install --quiet torch==2.13.0 ;;
    esac
    case "$extras" in
      # For its file qwen.tiktoken alone.
      *test*) "$venv/bin/python" -m pip install --quiet --no-deps dashscope ;;
    esac
    "$venv/bin/python" -m pip install --quiet -e ".${extras:+[$extras]}"
    echo "$stamp" >"$venv/stamp-$extras"
  fi
  PATH="$(cd "$venv/bin" && pwd):$PATH"
  export PATH
}
