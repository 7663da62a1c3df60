"""One script a claim of speed; each prints ratios measured side by side in one run."""
