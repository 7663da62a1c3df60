"""Classifiers: a ResNet, its downsampling, and the YAML it is built from."""
