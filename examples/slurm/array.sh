#!/usr/bin/env bash
# Ten nodes work on one job: an array of Slurm's, of which each task is a worker for the same queue. A server that all
# nodes reach is named in TRTJOB_REDIS_URL (docs/redis.md); source, output and model lie on a disk that all nodes see.
#   export TRTJOB_REDIS_URL=redis://head-node:6379
#   trtjob submit /shared/photos --model yolov3 -o /shared/results
#   sbatch examples/slurm/array.sh
#SBATCH --job-name=trtjob
#SBATCH --array=0-9
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --signal=B:TERM@60
# The last line has Slurm tell the worker a minute before the time is up: it reaches a batch edge and gives its shard back.
set -euo pipefail

: "${TRTJOB_REDIS_URL:?name the server that all nodes reach}"
# What is kept beside the queue is each task's own.
export TRTJOB_HOME=${TRTJOB_HOME:-${TMPDIR:-/tmp}/trtjob-${SLURM_ARRAY_JOB_ID:-0}-${SLURM_ARRAY_TASK_ID:-0}}

# A GPU that Slurm has given is the only one that the worker sees (CUDA_VISIBLE_DEVICES).
exec trtjob worker --threads "${SLURM_CPUS_PER_TASK:-0}"
