#!/usr/bin/env bash
#SBATCH --job-name=bua_jax
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --signal=TERM@120
# The paper's run as a Slurm job on one node of 8 GPUs, from the repository's root. SIGTERM two minutes
# before the limit saves the state; the requeued job goes on from it.
#   sbatch launch/train_slurm.sh checkpoints/Qwen2.5-7B foursquare_nyc
#   launch/train_slurm.sh checkpoints/Qwen2.5-7B foursquare_nyc --dry-run
root="${SLURM_SUBMIT_DIR:-$(dirname "$0")/..}"
if [[ " $* " == *" --dry-run "* ]]; then
  exec "$root/launch/train_gpus.sh" "$@"
fi
exec srun --kill-on-bad-exit=1 "$root/launch/train_gpus.sh" "$@"
