"""Empties the model package group of a stage that is taken down: CloudFormation deletes no group that holds models."""
