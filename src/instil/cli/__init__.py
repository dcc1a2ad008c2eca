"""The command line: a command parses, loads, calls one library function, and prints."""
