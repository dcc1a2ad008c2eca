"""Arms on the same rows, side by side: the prompting ladder, the test, what it shows."""
