"""Writes what is served: the network in each form that was asked for, held against torch, and the record beside it."""

from training.train.export.run import export

__all__ = ["export"]
