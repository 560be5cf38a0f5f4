"""Training of any scheme: phases, schedules, checkpoints, events."""
