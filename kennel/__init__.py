"""The operator's command and the rehearsal."""
