"""Exceptions that the command line reports without a traceback."""


class UserError(Exception):
    """Input that cannot be used.

    The message has one to three lines: the problem and where it is, what was expected, and how to fix it. The command
    line prints it and exits with code 2.
    """


class Interrupted(BaseException):
    """A run that was stopped by a signal after saving its state or its result.

    Like `KeyboardInterrupt` it is no `Exception`: `except Exception` around one run of several must not start the next.

    Attributes:
        code: exit code of a process ended by that signal, 128 plus its number.
    """

    def __init__(self, message: str, code: int):
        super().__init__(message)
        self.code = code


class Stopped(Exception):
    """A run that a callback stopped. Its state is saved, and the same call resumes it."""


class DivergenceError(Exception):
    """A run that diverged (NaN or infinity) in every restart.

    The message names the seed and the metric. Nothing was saved after the divergence. The command line prints the
    message and exits with code 3.
    """
