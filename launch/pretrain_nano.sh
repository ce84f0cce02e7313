#!/usr/bin/env bash
# Rebuilds the shipped nano (bua_jax/assets/nano): tokenizer, weights, training.json.
source "$(dirname "$0")/setup.sh"
setup ""
exec python -m bua_jax.pretrain_nano --output=bua_jax/assets/nano "$@"
