"""Two-stage heads: proposals, RoI extraction, sampling, box and mask branches, decoding."""
