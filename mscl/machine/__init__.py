"""The machine that a stage runs on: CPU and GPUs, signals, files, Slurm."""
