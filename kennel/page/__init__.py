"""One page on loopback to try the deployed function with: drop a photo, see the classes and where the time went."""

from kennel.page.server import serve_until_stopped, served
from kennel.page.target import Target

__all__ = ["Target", "serve_until_stopped", "served"]
