"""Names of tasks: `<suite>/<name>`, followed by `?repeat=<n>` for another action repeat than the suite's."""

REPEAT = "repeat"


def split_parameters(task: str) -> tuple[str, str]:
    """Split a task's name into the part before the question mark and the part after it, which may be empty."""
    name, _, parameters = task.partition("?")
    return name, parameters


def with_repeat(task: str, action_repeat: int, default: int | None = None) -> str:
    """Return the name of a task at an action repeat, in place of the one that it names; plain at the `default`."""
    name, _ = split_parameters(task)
    return name if action_repeat == default else f"{name}?{REPEAT}={action_repeat}"


def repeat_of(task: str) -> int | None:
    """Return the action repeat that a task's name states; None if it states none, which is the suite's."""
    key, _, value = split_parameters(task)[1].partition("=")
    return int(value) if key == REPEAT and value.isascii() and value.isdecimal() else None
