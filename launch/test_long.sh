#!/usr/bin/env bash
# The tests that take minutes each (marker `long`), which CI leaves out.
source "$(dirname "$0")/setup.sh"
setup "test,parity"
export JAX_PLATFORMS=cpu
exec python -m pytest -m long "$@"
