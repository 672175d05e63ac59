"""The one exception a user is meant to read."""


class UserError(Exception):
    """Something the user gave cannot be used: says in one to three lines what, where, what was expected and the mend.

    The command line prints it without a traceback and exits with code 2.
    """
