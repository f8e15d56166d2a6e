"""What the operator is told in place of a traceback."""


class KennelError(Exception):
    """Something that the operator can put right; the text is one sentence that says what and how."""
