"""Sweeps: runs of tasks x methods x seed groups x settings, in processes of this machine, on Ray or on SLURM."""
