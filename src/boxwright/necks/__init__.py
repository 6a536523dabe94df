"""One file, one neck: levels to levels."""
