"""The commands, for classifiers: what val.py and detect.py do once their weights turn out to be one's."""
