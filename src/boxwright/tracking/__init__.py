"""Objects followed from frame to frame, without torch."""
