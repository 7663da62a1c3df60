"""Writing a network for another runtime, one file a format, and checking that it gives the same."""
