"""Data sets of images with one label each: their YAML, readers of published formats, batches."""
