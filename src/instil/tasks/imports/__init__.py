"""Tasks and templates of other projects, brought to the form of ours."""
