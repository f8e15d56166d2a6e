"""Releases an approved model package: sets one parameter of the hosting stack."""
