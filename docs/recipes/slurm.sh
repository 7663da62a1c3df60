#!/usr/bin/env bash
#SBATCH --job-name=detect
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-task=1
#SBATCH --time=24:00:00
#SBATCH --requeue
# detect.py --ray on Slurm: a Ray cluster of the job's nodes, for as long as the job runs.
#   sbatch docs/recipes/slurm.sh --weights best.pt --source /archive/paths.parquet --tile 640
# Submitted again, or requeued, it continues the run.
set -euo pipefail
export RAY_USAGE_STATS_ENABLED=0 RAY_AUTH_MODE=token
ray get-auth-token --generate >/dev/null  # ~/.ray/auth_token, in a home folder that all nodes share
runs=${RUNS:-runs/detect} name=${NAME:-archive} port=6379

nodes=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=$(head -n 1 <<<"$nodes")
address=$(srun --nodes=1 --ntasks=1 -w "$head" hostname --ip-address | awk '{print $1}'):$port

srun --nodes=1 --ntasks=1 -w "$head" ray start --head --port "$port" --num-cpus "$SLURM_CPUS_PER_TASK" --block &
sleep 15
if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
    srun --nodes=$((SLURM_JOB_NUM_NODES - 1)) --ntasks=$((SLURM_JOB_NUM_NODES - 1)) --exclude "$head" \
        ray start --address "$address" --num-cpus "$SLURM_CPUS_PER_TASK" --block &
    sleep 15
fi

if [ -f "$runs/$name/run.json" ]; then
    python detect.py --ray "$address" --device 0 --project "$runs" --resume "$runs/$name"
else
    python detect.py --ray "$address" --device 0 --project "$runs" --name "$name" "$@"
fi
