"""Images and annotations: reading, augmenting, batching; knows nothing of models."""
