"""How a job or a pipeline fails."""


class JobFailed(RuntimeError):
    """A step failed; the text becomes its FailureReason."""


class Closed(JobFailed):
    """The rehearsal ends: what runs is killed at once."""


class DefinitionError(JobFailed):
    """The pipeline's definition or its parameters cannot work; the text says which part and why."""
