"""Loss functions, one file for each kind of head."""
