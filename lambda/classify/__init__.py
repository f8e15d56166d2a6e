"""Answers a caller: a picture in, probabilities out."""
