"""What inference writes: annotated media, labels, COCO JSON, CSV, crops, heat maps."""
