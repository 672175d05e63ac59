"""Parsing of options, with hints for unknown options and values that say more than tyro's."""

import re
from collections.abc import Container, Sequence
from dataclasses import is_dataclass
from typing import Annotated, Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

import tyro

from cdred.constraints import check_choice
from cdred.errors import UserError
from cdred.suggest import suggest_setting

Options = TypeVar("Options")

HELP_ALL = "--help-all"


def parse_options(
    cls: type[Options],
    arguments: Sequence[str],
    prog: str,
    *,
    default: Options | None = None,
    description: str | None = None,
    main_options: Container[str] | None = None,
) -> Options:
    """Parse the options of a command.

    Args:
        cls: dataclass of the options.
        arguments: the words after the command.
        prog: the command.
        default: defaults of the options; None for those of `cls`.
        description: first lines of the help; None for the docstring of `cls`.
        main_options: names of the fields that `--help` shows, while `--help-all` shows all; None for all, without
            `--help-all`.

    Raises:
        UserError: an option is unknown, or its value is none of its choices.
        SystemExit: with code 2 after another usage error, with code 0 after a help.
    """
    if main_options is not None and HELP_ALL in arguments:
        arguments = ["--help"]
    elif main_options is not None and asks_for_help(arguments):
        _print_main_help(cls, prog, default, description, main_options)
    check_options(cls, arguments, prog, "--help" if main_options is None else HELP_ALL)
    options = tyro.cli(cls, args=arguments, prog=prog, default=default, description=description)
    return cast(Options, options)


def asks_for_help(arguments: Sequence[str]) -> bool:
    """Check if the words after a command contain `--help` or `-h`."""
    return bool({"-h", "--help"} & set(arguments))


def _print_main_help(cls: type, prog: str, default: Any, description: str | None, main_options: Container[str]) -> None:
    """Print the help of the main options and where the others are shown, and exit with code 0."""
    try:
        tyro.cli(_hide(cls, main_options), args=["--help"], prog=prog, default=default, description=description)
    finally:
        print(f"`{prog} {HELP_ALL}` shows all options, also those of networks, losses, planning and pretraining.")


def _hide(cls: type, main_options: Container[str]) -> type:
    """Return a subclass of a dataclass that shows only the fields of `main_options` in the help."""
    hints = get_type_hints(cls, include_extras=True)
    hidden = {key: Annotated[hint, tyro.conf.Suppress] for key, hint in hints.items() if key not in main_options}
    return type(cls.__name__, (cls,), {"__annotations__": hidden, "__module__": cls.__module__})


def check_options(cls: type, arguments: Sequence[str], prog: str, help_option: str = "--help") -> None:
    """Check that all options are known, and that their values are among their choices if they have any.

    Args:
        cls: dataclass of the options.
        arguments: the words after the command.
        prog: the command.
        help_option: the option that shows all options, for the message.

    Raises:
        UserError: for the first that is not; the message suggests what is meant.
    """
    if asks_for_help(arguments):
        return
    known = options_of(cls)
    name, choices, many = "", (), False
    for argument in arguments:
        if re.match(r"--.|-[A-Za-z]$", argument):
            name, _, value = argument.partition("=")
            name = name.replace("_", "-")
            if name not in known:
                suggestion = suggest_setting(name, known)
                raise UserError(f"unknown option {argument}.{suggestion}\nRun `{prog} {help_option}` for all options.")
            choices, many = _choices(known[name]), get_origin(known[name]) is tuple
            values = [value] if value else []
        else:
            values = [argument]
        for value in values if choices else ():
            check_choice(name, value, choices)
            choices = choices if many else ()


def options_of(cls: Any, prefix: str = "--") -> dict[str, Any]:
    """Return the type of each option of a dataclass by name.

    The negative form of a flag is an option of its own. A positional argument is named in capitals, as in the help.
    """
    options = {}
    for key, annotated in get_type_hints(cls, include_extras=True).items():
        name = key.replace("_", "-")
        hint, *markers = get_args(annotated) if get_origin(annotated) is Annotated else (annotated,)
        if is_dataclass(hint):
            options |= options_of(hint, f"{prefix}{name}.")
        elif tyro.conf.Positional in markers:
            options[name.upper()] = hint
        elif tyro.conf.Suppress not in markers:
            aliases = [alias for marker in markers for alias in getattr(marker, "aliases", None) or ()]
            options |= dict.fromkeys((prefix + name, *aliases), hint)
            if hint is bool:
                options[f"{prefix}no-{name}"] = hint
    return options


def _choices(hint: Any) -> tuple[str, ...]:
    """Return the values that an option accepts; none if there is no fixed set of them."""
    if get_origin(hint) is Literal:
        return get_args(hint)
    if hint is type(None):
        return ("None",)
    # A literal, or None, or a tuple of literals of any length.
    parts = [_choices(part) for part in get_args(hint) if part is not Ellipsis]
    return tuple(value for part in parts for value in part) if all(parts) else ()
