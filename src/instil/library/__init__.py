"""Tasks that are ready made, one a file, and the readers that only these need."""
