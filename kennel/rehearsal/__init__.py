"""Plays AWS for the synthesized templates on one machine."""
