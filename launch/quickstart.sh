#!/usr/bin/env bash
# Sets everything up and runs the whole curriculum on the built-in simulated population with the
# built-in model; results in runs/quickstart (metrics.json, report.html). Arguments override fields:
#   launch/quickstart.sh --config.windows.train=2000
source "$(dirname "$0")/setup.sh"
setup ""
keep_memory
exec python -m bua_jax.curriculum --config=configs/quickstart.py --workdir=runs/quickstart "$@"
