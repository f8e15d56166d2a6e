"""Asks the endpoint during a release what photos with known answers show, so that a canary is never without traffic."""
