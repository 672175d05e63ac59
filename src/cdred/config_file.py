"""Settings as text: a run's `config.yaml`, and what differs between two."""

from dataclasses import asdict, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml

from cdred.config import RunConfig, check
from cdred.errors import UserError

LONGEST, MOST_BYTES = 80, 2**20
PUT_BACK = "Put back what the run wrote, or give another folder."


class _Loader(yaml.SafeLoader):
    """Mappings, lists, numbers and strings: no tags, which say what to make of a value, and no aliases, which let a
    short text stand for a huge one."""

    def compose_node(self, parent, index):
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise yaml.YAMLError("anchors and aliases have no place in it")
        if getattr(event, "tag", None) is not None:
            raise yaml.YAMLError(f"the tag {event.tag} has no place in it")
        return super().compose_node(parent, index)


def to_yaml(config: RunConfig) -> str:
    """The settings as plain YAML: mappings, lists, numbers, strings. `out` is left out: a run folder may be moved."""
    tree = {key: _plain(value) for key, value in asdict(config).items() if key != "out"}
    return yaml.safe_dump(tree, sort_keys=False)


def from_yaml(text: str, source: str = "config.yaml") -> RunConfig:
    """The inverse of `to_yaml`; absent keys take their defaults.

    Raises:
        UserError: not YAML, an unknown key, or a value of the wrong type.
    """
    return _build(RunConfig, plain_yaml(text, source), source, "")


def read_config(path: Path) -> RunConfig:
    """The settings in a run's `config.yaml`.

    Raises:
        UserError: the file cannot be read, as `from_yaml`, or settings that cannot work together.
    """
    config = from_yaml(read_text(path), str(path))
    try:
        check(config)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return config


def read_text(path: Path) -> str:
    """A text file.

    Raises:
        UserError: it cannot be read, is not text, or far too long for settings.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise UserError(f"{path} has more than {MOST_BYTES:,} bytes, which no settings have.\n{PUT_BACK}")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise UserError(f"{path} cannot be read: {why}.\n{PUT_BACK}") from error


def plain_yaml(text: str, source: str) -> Any:
    """Mappings, lists, numbers and strings of YAML text.

    Raises:
        UserError: it is not YAML, or has tags or aliases.
    """
    try:
        return _Loader(text).get_single_data()
    # Of a date that is none, a number of too many digits, brackets without end.
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError, TypeError, AttributeError) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{source} is not YAML as a run writes it: {_shown(why)}\n{PUT_BACK}") from error


def _shown(value: object) -> str:
    """A value in a message: of one line and no great length, whatever it is."""
    text = " ".join(str(value).split())
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."


def _plain(value):
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _build(cls, tree, source: str, prefix: str):
    if not isinstance(tree, dict):
        raise UserError(
            f"{source}: expected a mapping of settings{f' under {prefix}' if prefix else ''}, got {_shown(repr(tree))}."
        )
    types = get_type_hints(cls)
    for key in tree:
        if key not in types:
            close = get_close_matches(str(key), types, n=1)
            hint = f" Did you mean {prefix}{close[0]}?" if close else ""
            raise UserError(f"{source}: unknown setting {_shown(f'{prefix}{key}')}.{hint}")
    return cls(**{key: _value(types[key], value, source, prefix + key) for key, value in tree.items()})


def _value(kind, value, source: str, name: str):
    if is_dataclass(kind):
        return _build(kind, value, source, f"{name}.")
    if get_origin(kind) is tuple and isinstance(value, list):
        return tuple(_value(get_args(kind)[0], one, source, name) for one in value)
    allowed = get_args(kind) if get_origin(kind) is Literal else None
    if kind is float and isinstance(value, (int, str)):
        # YAML 1.1 takes 3e-4 for a word.
        value = _number(value)
    if value not in allowed if allowed else type(value) is not kind:
        expected = f"one of {', '.join(allowed)}" if allowed else getattr(kind, "__name__", str(kind))
        raise UserError(f"{source}: {name} must be {expected}, got {_shown(repr(value))}.")
    return value


def _number(value):
    try:
        return float(value)
    except ValueError:
        return value


def first_difference(one: RunConfig, other: RunConfig) -> str | None:
    """A setting in which two runs differ, as `name: this, not that`; None if they are the same."""
    flat_one, flat_other = (_flat(asdict(config)) for config in (one, other))
    return next((f"{k}: {v}, not {flat_other[k]}" for k, v in flat_one.items() if flat_other[k] != v), None)


def _flat(tree: dict, prefix: str = "") -> dict:
    flat = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
