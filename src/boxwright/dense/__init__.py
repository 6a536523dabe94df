"""Dense heads: towers, matching, decoding."""
