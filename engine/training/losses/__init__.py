"""Loss functions, one file a task."""
