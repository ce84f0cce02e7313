#!/usr/bin/env bash
# The tests that take minutes each (marker `long`), which CI leaves out. Among them are 200 kills of training
# and a checkpoint's every system call killed or refused; that one needs strace (apt-get install strace).
# What compares with tunix skips unless it is installed: .venv/bin/pip install google-tunix
source "$(dirname "$0")/setup.sh"
setup "test,parity"
export JAX_PLATFORMS=cpu
exec python -m pytest -m long "$@"
