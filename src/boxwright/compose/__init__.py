"""Name to class, recipe to detector."""
