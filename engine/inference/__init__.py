"""Inference: the Python API, the pipeline from images to detections, tiling, tracking, outputs."""
