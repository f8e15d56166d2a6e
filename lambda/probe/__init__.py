"""Asks photos with known answers: the endpoint during a release, and a new version of the function before traffic."""
