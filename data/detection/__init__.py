"""Detection data sets: records, labels, tiles, caches, samples and batches."""
