"""Training: config, loop, state, tasks, losses, optimizer, run folder."""
