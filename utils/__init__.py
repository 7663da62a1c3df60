"""Tools that know nothing of models/ or data/: boxes, NMS, loss, metrics, optimization, plots, cli."""
