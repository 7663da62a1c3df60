"""Data sets: descriptions, labels, tiles, augmentation and loading."""
