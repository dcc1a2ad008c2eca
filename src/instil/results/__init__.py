"""What a run found, as values; `run.RunSummary` holds all of it, and is `summary.json`."""
