#!/usr/bin/env bash
# Builds nano anew: tokenizer, weights, training.json (about an hour on 2 CPU cores).
#   launch/pretrain_nano.sh --output=runs/nano
#   launch/pretrain_nano.sh --output=runs/nano2 --init=runs/nano --rate=0.3 --steps=700 --dialogues=12000 --seed=1
# The shipped weights are of these two commands, except that in the first one all drills of a dialogue
# stood ahead of its other rounds.
source "$(dirname "$0")/setup.sh"
setup ""
keep_memory
exec python -m bua_jax.pretrain_nano "$@"
