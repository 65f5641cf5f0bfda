"""What can go wrong with the stack on one machine, said so that the reader knows what to do next."""


class StackError(Exception):
    """The stack cannot start or stop; the message is a paragraph for the user and names the remedy."""


class PortTakenError(StackError):
    """Somebody else listens on a port the stack needs."""


class AlreadyRunningError(StackError):
    """Another `kazheng up` uses this home."""


class StartFailedError(StackError):
    """A process ended or stayed silent instead of getting ready."""
