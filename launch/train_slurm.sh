#!/usr/bin/env bash
#SBATCH --job-name=bua_jax
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --signal=TERM@120
# The paper's run as a Slurm job on nodes of 8 GPUs that share this checkout, from the repository's root:
# one process per node, dialogues shared out over nodes, the model over a node's GPUs. SIGTERM two minutes
# before the limit saves the state; the requeued job goes on from it.
#   sbatch launch/train_slurm.sh checkpoints/Qwen2.5-7B foursquare_nyc
#   sbatch --nodes=1 launch/train_slurm.sh checkpoints/Qwen2.5-7B foursquare_nyc
#   launch/train_slurm.sh checkpoints/Qwen2.5-7B foursquare_nyc --dry-run
source "${SLURM_SUBMIT_DIR:-$(dirname "$0")/..}/launch/setup.sh"
command=(launch/train_gpus.sh "${@:1:2}" --distributed "--config.execution.mesh=${SLURM_NNODES:-2}x8x1" "${@:3}")
if [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ]; then
  command+=(--take_over) # a requeued job is alone, and a node that died has left its claim
fi
if [[ " $* " == *" --dry-run "* ]]; then
  exec "${command[@]}"
fi
setup cuda12 # once, not by all nodes at a time
export JAX_LOCAL_DEVICE_IDS=0,1,2,3,4,5,6,7 # or each process would take one GPU
exec srun --kill-on-bad-exit=1 "${command[@]}"
