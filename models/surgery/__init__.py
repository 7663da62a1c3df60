"""Surgery: replace the downsampling of a trained network, its outputs unchanged."""
