"""Merging: from the detections of tiles to those of the full image."""
