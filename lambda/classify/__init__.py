"""Answers a caller of the function: an image in, the model's probabilities out."""
