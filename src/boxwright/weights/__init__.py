"""Weights of other checkpoints."""
