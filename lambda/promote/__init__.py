"""Releases an approved model: one parameter of the hosting stack."""
