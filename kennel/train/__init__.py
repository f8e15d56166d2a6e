"""`kennel train` against AWS: choose, bound the cost, start, follow."""
