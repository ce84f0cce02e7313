#!/usr/bin/env bash
# The paper's run on a TPU slice that is one host (v5e-8, v6e-8), started on that host. Arguments as
# launch/train_gpus.sh; give --config.mesh for a slice of another size.
#   launch/train_tpu.sh checkpoints/Qwen2.5-7B foursquare_nyc --dry-run
EXTRAS=tpu exec "$(dirname "$0")/train_gpus.sh" "$@"
