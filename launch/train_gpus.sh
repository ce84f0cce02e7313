#!/usr/bin/env bash
# The paper's run on one node of GPUs (NVIDIA, by default 8): all stages and the evaluation.
#   launch/train_gpus.sh checkpoints/Qwen2.5-7B foursquare_nyc
#   launch/train_gpus.sh checkpoints/Qwen2.5-7B foursquare_nyc --dry-run --config.execution.mesh=4
# CHECKPOINT is a Hugging Face directory, a .gguf file or NAME@REVISION on the hub; DATA a name in
# configs/data or a data config of your own (mine.py). MODEL=qwen2.5-0.5b ... qwen2.5-72b, by default
# qwen2.5-7b. What follows goes to `python -m bua_jax.curriculum`; the same command again goes on where it was cut.
source "$(dirname "$0")/setup.sh"
if [ $# -lt 2 ]; then
  echo "Usage: $0 CHECKPOINT DATA [--dry-run] [--config.FIELD=VALUE ...]" >&2
  exit 2
fi
checkpoint="$1" data="$2" model="${MODEL:-qwen2.5-7b}" extras="${EXTRAS:-cuda12}"
shift 2
command=(python -m bua_jax.curriculum "--config=configs/curriculum.py:model=$model,scale=paper,data=$data,mesh=8"
  "--config.model.path=$checkpoint" "--workdir=runs/$model-$(basename "$data" .py)")
dry_run=""
for argument in "$@"; do
  if [ "$argument" = --dry-run ]; then dry_run=1; else command+=("$argument"); fi
done
if [ -n "$dry_run" ]; then
  python -c "import bua_jax" 2>/dev/null || setup "" # checking needs no accelerator
  echo "${command[*]}"
  # The machine that it is for has the devices: 64 are made up here.
  exec env JAX_PLATFORMS=cpu XLA_FLAGS=--xla_force_host_platform_device_count=64 "${command[@]}" --dry_run
fi
setup "$extras"
export XLA_PYTHON_CLIENT_MEM_FRACTION="${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.92}"
exec "${command[@]}"
