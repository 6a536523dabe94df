"""From a trained detector to what people look at."""
