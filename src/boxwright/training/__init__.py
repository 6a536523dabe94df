"""The training loop and what it keeps; knows the detector's three methods and nothing else."""
