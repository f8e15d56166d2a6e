"""Writes down what became of each release, and acts on those that failed."""
