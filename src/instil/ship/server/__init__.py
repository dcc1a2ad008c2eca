"""`instil serve`: a run's model and its base model behind an OpenAI-compatible address."""
