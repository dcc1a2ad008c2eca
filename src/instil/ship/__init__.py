"""What is done with the model of a run: it is asked, talked to and exported."""
