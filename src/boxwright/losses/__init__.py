"""Predictions and targets to named scalars."""
