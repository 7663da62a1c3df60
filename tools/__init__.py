"""Commands beside the four scripts, each run as `python -m tools.NAME`."""
