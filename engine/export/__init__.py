"""Export: a trained network as a file for other runtimes, compared with PyTorch before it is kept."""
