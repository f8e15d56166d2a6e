"""Why a release could not begin. Each of these fails the invocation, so that Lambda tries again and the alarm rings."""


class PromoteError(Exception):
    """The text is for the operator who reads the log."""


class InvalidEvent(PromoteError):
    """An approval that does not say of what."""


class StackBusy(PromoteError):
    """The stack is in the middle of something; the same event later may succeed."""


class StackBroken(PromoteError):
    """The stack takes no update before somebody has looked at it."""
