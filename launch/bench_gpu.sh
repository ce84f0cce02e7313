#!/usr/bin/env bash
# What an accelerator does, in about 12 minutes on one GPU of 80 GB or more: a LoRA step of 7 billion parameters
# at 4,096 tokens (the highest rate that was published of an H100 is 14,110 tokens/s); texts of that size decoded,
# beside the roofline; SmolLM2 taught on foursquare_nyc and asked 1,000 times.
#   launch/bench_gpu.sh FOLDER [tiny]
# Each part is a file in FOLDER; one that is there is not measured again. A part that fails is said, the others
# go on, and the exit code is 1. `tiny` has nano in place of both, on any machine: whether the commands run.
# SMOLLM2: its weights (launch/fetch_smollm2.sh). DATA: folder of the data sets. Uses the Python that is active,
# with JAX for the device: pip install -e '.[cuda12,gguf]'.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
folder="$(realpath -m "${1:?usage: launch/bench_gpu.sh FOLDER [tiny]}")"
smollm2="${SMOLLM2:-checkpoints/SmolLM2-135M-Instruct.Q4_1.gguf}"
data="${DATA:-../shared/data}/foursquare_nyc.parquet"
step=(--base=qwen2.5-7b --peers= --rows=4 --length=4096 --repeats=3)
decode=(--base=qwen2.5-7b --dtype=bfloat16 --batches=256 --length=400 --new=455 --repeats=1)
taught=(model=smollm2-135m --config.model.path="$smollm2" --config.model.dtype=bfloat16
  --config.decoding.cache_dtype=bfloat16 --config.windows.train=12000 --config.windows.test=2000) count=1000
if [ "${2:-}" = tiny ]; then
  step=(--base=nano --peers= --rows=2 --length=256 --repeats=1)
  decode=(--base=nano --batches=4 --length=20 --new=6 --repeats=1)
  taught=("model=nano,scale=tiny" --config.windows.train=120 --config.windows.validation=16
    --config.windows.test=40 --config.windows.generation_test=3) count=8
fi
failed=0

part() { # FILE COMMAND...: the command unless its file is there
  local file="$1"
  shift
  if [ -e "$file" ]; then
    echo "$file is there."
  elif ! "$@"; then
    echo "$(basename "$file") failed; the others go on." >&2
    failed=1
  fi
}

mkdir -p "$folder"
part "$folder/step.json" python -m bua_jax.bench train --parts=peers "${step[@]}" --output="$folder/step.json"
part "$folder/decode.json" python -m bua_jax.bench decode --parts=generate "${decode[@]}" --output="$folder/decode.json"
part "$folder/run/report.html" python -m bua_jax.curriculum --config="configs/foursquare_nyc.py:${taught[0]}" \
  --workdir="$folder/run" --config.data.path="$data" --config.evaluation.methods="('bua','behavegpt')" "${taught[@]:1}"
part "$folder/predictions.json" python -m bua_jax.bench decode --model="$folder/run" --count="$count" --repeats=1 \
  --output="$folder/predictions.json"
exit "$failed"
