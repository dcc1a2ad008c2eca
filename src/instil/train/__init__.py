"""Training: optimizer steps, validation, early stopping and checkpoints."""
