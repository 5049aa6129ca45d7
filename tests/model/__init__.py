"""A model of the batch loop, and a machine that compares the two whatever happens."""
