"""Inference with classifiers."""
