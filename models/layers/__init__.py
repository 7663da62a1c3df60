"""Layers of the YOLOv5 networks, with YOLOv5's submodule names."""
