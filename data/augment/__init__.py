"""Augmentation: a plan drawn per sample, then rendered in a worker process or on the training device."""
