"""How many requests a second one instance holds: open-loop load, a search for the highest rate, a file for `stacks`."""
