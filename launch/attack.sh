#!/usr/bin/env bash
# Attacks a run of the quickstart at reduced size: 1,000 corruptions over all its files, 200 kills over its steps
# and verbs, then full and read-only disks and two starts at once. Some hours on 2 cores.
#   launch/attack.sh SEED [CORRUPTIONS KILLS]
# Prints a line of JSON for all that did not hold, and ends with 1 after the first part if there was any.
source "$(dirname "$0")/setup.sh"
setup "test,parity"
export JAX_PLATFORMS=cpu
seed="${1:?usage: launch/attack.sh SEED [CORRUPTIONS KILLS]}"
folder="runs/attack$seed"
mkdir -p "$folder"
python -m tests.support.runs "$folder/run"
python -m tests.programs.attack "$folder/run" "$seed" "${2:-1000}" "${3:-200}"
python -m pytest -q tests/test_bad_input.py -k "disk or read or two_processes"
