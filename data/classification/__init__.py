"""Images with one label each: descriptions, readers of the published formats, batches."""
