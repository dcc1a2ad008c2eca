"""The recipe: its keys, how YAML files are read with lines, and how mistakes in them are told."""
