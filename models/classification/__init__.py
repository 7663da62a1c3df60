"""Classifiers: ResNets, their downsampling, and the YAML they are built from."""
