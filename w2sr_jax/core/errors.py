"""The ways a run ends on purpose. runtime.py prints each as one line, without a traceback."""


class W2SRError(Exception):
    """Something outside the code is wrong (a file, a tensor, a disk); the message names it. Exit code 1."""


class UsageError(W2SRError):
    """The command line or the config is wrong; the message names the key. Exit code 2."""


class Preempted(BaseException):
    """SIGTERM came, and what had to be saved is saved. Exit code 75: the same command resumes.

    No Exception, so that nothing that handles errors takes it for one.
    """
