"""Means, differences and their intervals."""
