#!/usr/bin/env bash
# Builds nano anew: tokenizer, weights, training.json (hours on 2 CPU cores; the same command
# goes on where it was cut, and more --steps make a finished run longer).
#   launch/pretrain_nano.sh --output=runs/nano
# --config.model.path=runs/nano uses your own.
source "$(dirname "$0")/setup.sh"
setup ""
keep_memory
exec python -m bua_jax.pretrain_nano "$@"
