"""Explanations of detections: which pixels they depend on, and how much of that is true."""
