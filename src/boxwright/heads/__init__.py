"""One file, one head: levels to output, with loss and postprocess."""
