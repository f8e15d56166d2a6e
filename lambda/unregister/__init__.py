"""Empties the model package group of a stage that is destroyed: CloudFormation deletes no group that holds models."""
