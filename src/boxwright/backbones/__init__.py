"""One file, one family: images to levels."""
