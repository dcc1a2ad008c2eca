"""A run directory, and what a run does in it: one file a stage."""
