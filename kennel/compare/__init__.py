"""`kennel compare`: past runs from their records, and what they say about the next one."""
