#!/usr/bin/env bash
# Sets everything up and passes the tests: lint, types, tests. Arguments go to pytest.
#   launch/test.sh                       everything that CI runs
#   launch/test.sh tests/events -k split a part of it
source "$(dirname "$0")/setup.sh"
setup "test,parity"
# The kernels for a CPU are compiled on first use. Without a compiler their tests skip; in CI they may not.
if [ -n "${CI:-}" ] && ! command -v c++ >/dev/null 2>&1; then
  apt-get update -qq
  apt-get install -qq -y g++
fi
# Reports are looked at in a browser; without one that test skips, and in CI it fails.
if [ -n "${CI:-}" ] && ! command -v chromium >/dev/null 2>&1; then
  apt-get update -qq || true
  apt-get install -qq -y --no-install-recommends chromium >/dev/null || echo "chromium was not installed"
fi
export JAX_PLATFORMS=cpu
ruff check .
ruff format --check .
mypy
exec python -m pytest -n 2 --dist loadfile --no-loadscope-reorder "$@"
