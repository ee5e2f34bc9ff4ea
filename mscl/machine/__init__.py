"""The machine that a stage runs on: processors, signals, files, Slurm."""
