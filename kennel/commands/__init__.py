"""The commands of `kennel`, one a file: what they take, and whom they ask."""
