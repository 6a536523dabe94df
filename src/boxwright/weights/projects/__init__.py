"""Projects and families of models: what the sources of one have in common, and none of others."""
