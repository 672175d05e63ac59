"""Settings as nested mappings, and the dataclasses that declare them."""

import json
import math
import os
import re
from collections.abc import Callable
from dataclasses import is_dataclass
from functools import cache
from typing import Any, TypeVar, get_type_hints

from cdred.constraints import check_choice
from cdred.errors import UserError
from cdred.suggest import suggest_setting
from cdred.text import shorten

T = TypeVar("T")
# Path of keys, `("steps",)` or `("optim", "tau")`, without the groups.
SettingPath = tuple[str, ...]
# Formats a path for a message, e.g. as an option.
SettingName = Callable[[SettingPath], str]


def parse(cls: type[T], tree: dict[str, Any], name: SettingName) -> T:
    """Build settings from nested mappings without unknown keys, absent ones at their defaults.

    Raises:
        UserError: a value is of a wrong type or out of range.
    """
    from pydantic import ValidationError  # here: it takes a tenth of a second, which `--help` should not wait for

    try:
        # As JSON: its strict types are those of YAML and the command line, where a tuple is a list.
        text = json.dumps(tree, default=_as_json, skipkeys=True)
        return _adapter(cls).validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        path = tuple(str(key) for key in first["loc"])
        # Of a sequence, the setting and not the index.
        path = path[:-1] if path and path[-1].isdecimal() else path
        if first["type"] == "literal_error":
            choices = re.findall(r"'([^']*)'", first.get("ctx", {}).get("expected", ""))
            check_choice(name(path), first["input"], choices)
        problem = first["msg"].replace("Input should", "should", 1).replace("valid array", "valid list")
        if isinstance(first["input"], float) and not math.isfinite(first["input"]):
            problem = "should be finite"
        got = shorten(repr(first["input"]))
        raise UserError(f"{name(path)} {problem[:1].lower()}{problem[1:]}, got {got}.") from None


@cache
def _adapter(cls: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(cls)


def _as_json(value: Any) -> Any:
    """Convert what Python callers may pass; make anything else a mapping, which no setting accepts."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, range):
        return list(value)
    return value.item() if getattr(value, "ndim", None) == 0 else {type(value).__name__: str(value)}


def refuse_unknown(cls: type, tree: Any, name: SettingName) -> None:
    """Check that all keys of nested mappings are settings, or groups of settings.

    Raises:
        UserError: for the first one that is not, with the name that may be meant.
    """
    _refuse_unknown(cls, cls, tree, (), name)


def _refuse_unknown(root: type, cls: type, tree: Any, path: SettingPath, name: SettingName) -> None:
    if not isinstance(tree, dict):
        raise UserError(f"{name(path)}: expected a mapping of settings, got {shorten(repr(tree))}.".removeprefix(": "))
    types = get_type_hints(cls)
    for key, value in tree.items():
        if key not in types:
            names = [name(known) for known in (*setting_paths(root), *((group,) for group in config_groups(root)))]
            unknown = name((*path, str(key)))
            raise UserError(f"unknown setting {shorten(unknown)}.{suggest_setting(unknown, names)}")
        if is_dataclass(types[key]):
            _refuse_unknown(root, types[key], value, (*path, key), name)


@cache
def config_groups(cls: type) -> dict[str, Any]:
    """Return the config class of each group of settings."""
    return {key: group for key, group in get_type_hints(cls).items() if is_dataclass(group)}


def setting_paths(cls: Any) -> list[SettingPath]:
    """Return the path of every setting."""
    paths = []
    for key, group in get_type_hints(cls).items():
        paths += [(key, *path) for path in setting_paths(group)] if is_dataclass(group) else [(key,)]
    return paths
