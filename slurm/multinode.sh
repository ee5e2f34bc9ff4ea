#!/usr/bin/env bash
# Pretrain one network on several machines: one torchrun per Slurm task, one process per GPU.
#   sbatch --nodes=2 --gpus-per-node=2 --cpus-per-task=32 --mem=0 slurm/multinode.sh config/paper.yaml r50 mscl 0
# Submit it from the repository's root, with the environment active, after `snakemake … prepared`. It writes its results where
# Snakemake expects them. Give options of sbatch, such as --account, --partition and --time, before the name of the script.
#SBATCH --job-name=mscl
#SBATCH --ntasks-per-node=1
#SBATCH --time=2-00:00:00
#SBATCH --signal=TERM@180
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
if [ $# -lt 4 ]; then
  echo "usage: sbatch [options] slurm/multinode.sh CONFIG MODEL METHOD SEED [options of mscl pretrain]" >&2
  exit 2
fi
run=$(python -m mscl job pretrain --config "$1" --model "$2" --method "$3" --seed "$4")
{ read -r out && read -r records && read -r job; } <<<"$run"
head=${MSCL_HEAD:-$(hostname)} # this script runs on the first machine of the job
processes=${PROCESSES:-${SLURM_GPUS_ON_NODE:-1}}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} PYTHONUNBUFFERED=1
echo "$SLURM_NTASKS x $processes processes, rendezvous at $head, results in $out"
exec srun --kill-on-bad-exit=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" python -m torch.distributed.run \
  --nnodes="$SLURM_NTASKS" --nproc-per-node="$processes" \
  --rdzv-backend=c10d --rdzv-endpoint="$head:$((20000 + SLURM_JOB_ID % 20000))" --rdzv-id="mscl-$SLURM_JOB_ID" \
  -m mscl pretrain --job "$job" --out "$out" --records "$records" "${@:5}"
