"""The one exception a user is meant to read."""


class UserError(Exception):
    """Something the user gave cannot be used: says in one to three lines what, where, what was expected and the mend.

    The command line prints it without a traceback and exits with code 2.
    """


class Interrupted(Exception):
    """A run was told to stop, and has saved itself. `code` is what a shell expects of a process that a signal ended."""

    def __init__(self, message: str, code: int):
        super().__init__(message)
        self.code = code


class DivergenceError(Exception):
    """Learning left the numbers and did not come back: says which seed, in which term, and what can be done.

    Nothing was saved after it happened. The command line prints it without a traceback and exits with code 3.
    """
