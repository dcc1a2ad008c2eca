"""Answers and their scores: choices by likelihood, generated text, and classifiers."""
