"""Evaluation: one evaluator for tiles, full images and results files; metrics; report."""
