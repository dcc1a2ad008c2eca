"""What `instil init` guesses of a file of rows, and the two files that it writes."""
