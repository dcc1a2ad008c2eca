"""A pack through a model: attention, layers, losses, and the proofs of its short cuts."""
