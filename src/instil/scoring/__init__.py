"""How right one answer is: metrics, and the texts and conditions that they compare."""
