#!/usr/bin/env bash
# The tests that take minutes each (marker `long`), which CI leaves out. Among them are 200 kills of training
# and a checkpoint's every system call killed or refused; that one needs strace (apt-get install strace).
# What compares with tunix and llama.cpp skips unless they are installed: .venv/bin/pip install google-tunix
# (which holds back versions of ours), .venv/bin/pip install -e '.[llama-cpp]'
source "$(dirname "$0")/setup.sh"
setup "test,parity"
export JAX_PLATFORMS=cpu
exec python -m pytest -m long "$@"
