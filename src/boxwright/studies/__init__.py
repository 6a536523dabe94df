"""Studies that come with Boxwright, one YAML file each; ``boxwright study NAME`` runs one."""
