"""report.html and the figures of an evaluation."""
