"""Releases an approved model package: sets two parameters of the hosting stack."""
