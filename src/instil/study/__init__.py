"""Experiments: several runs that differ in one thing, compared on the same rows."""
