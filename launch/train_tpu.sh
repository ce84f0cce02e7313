#!/usr/bin/env bash
# The paper's run on a TPU slice of 8 chips that is one host (v5e-8, v6e-8), started on that host. Arguments
# as launch/train_gpus.sh.
#   launch/train_tpu.sh checkpoints/Qwen2.5-7B foursquare_nyc --dry-run
# A slice of several hosts needs the same command on each and a workdir that all of them see:
#   gcloud compute tpus tpu-vm ssh NAME --worker=all --command="cd bua_jax && launch/train_tpu.sh \
#     checkpoints/Qwen2.5-7B foursquare_nyc --distributed --config.execution.mesh=16 --workdir=/mnt/shared/nyc"
EXTRAS=tpu exec "$(dirname "$0")/train_gpus.sh" "$@"
