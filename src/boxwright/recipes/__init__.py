"""Named detectors: one YAML file each."""
