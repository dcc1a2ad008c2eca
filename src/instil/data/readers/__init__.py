"""From a file or folder to rows: one module a family of formats."""
