"""Settings as text: a run's `config.yaml`, and the differences between two runs."""

import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from cdred.config import RunConfig, parse_settings, validate
from cdred.errors import UserError
from cdred.text import shorten

MAX_BYTES = 2**20
HINT = "Restore the file that the run wrote, or give another folder."


class _Loader(yaml.SafeLoader):
    """Loader of mappings, lists, numbers and strings, without tags, which name types, and without aliases, by which a
    short text can stand for a huge one. A key that is given twice, of which one would be ignored, is an error."""

    def compose_node(self, parent, index):
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise yaml.YAMLError("anchors and aliases are not allowed")
        if getattr(event, "tag", None) is not None:
            raise yaml.YAMLError(f"the tag {event.tag} is not allowed")
        return super().compose_node(parent, index)

    def compose_mapping_node(self, anchor):
        node = super().compose_mapping_node(anchor)
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if repeated := next((key for key in keys if keys.count(key) > 1), None):
            raise yaml.YAMLError(f"{repeated} is given twice")
        return node


# YAML 1.1 reads 3e-4, without a point, as a string.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def to_yaml(config: RunConfig) -> str:
    """Write settings as plain YAML, as `plain_settings`."""
    return yaml.safe_dump(plain_settings(config), sort_keys=False)


def plain_settings(config: RunConfig) -> dict[str, Any]:
    """Return settings as mappings, lists, numbers and strings, without `out`: a run folder may be moved."""
    return {key: _plain(value) for key, value in asdict(config).items() if key != "out"}


def from_yaml(text: str, source: str = "config.yaml") -> RunConfig:
    """Read settings from YAML, the inverse of `to_yaml`; absent keys take their defaults.

    Raises:
        UserError: not YAML, an unknown key, or a value of a wrong type or out of range.
    """
    try:
        return parse_settings(plain_yaml(text, source), ".".join)
    except UserError as error:
        raise UserError(str(error) if str(error).startswith(source) else f"{source}: {error}") from None


def read_config(path: Path) -> RunConfig:
    """Read and check the settings in a run's `config.yaml`.

    Raises:
        UserError: as `from_yaml`; or the file cannot be read, or the settings contradict each other.
    """
    config = from_yaml(read_text(path), str(path))
    try:
        validate(config)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return config


def read_text(path: Path, hint: str = HINT) -> str:
    """Read a text file.

    Args:
        path: the file.
        hint: last line of the messages of errors.

    Raises:
        UserError: it cannot be read, is not UTF-8, or is too large for settings.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path} is larger than {MAX_BYTES:,} bytes, too large for settings.\n{hint}")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise UserError(f"{path} cannot be read: {reason}.\n{hint}") from error


def plain_yaml(text: str, source: str, hint: str = HINT) -> Any:
    """Parse YAML of mappings, lists, numbers and strings.

    Args:
        text: the YAML.
        source: name of the file, for messages.
        hint: last line of the messages of errors.

    Raises:
        UserError: it is not YAML, or has tags, aliases, or a key twice in a mapping.
    """
    try:
        return _Loader(text).get_single_data()
    # PyYAML raises the others for impossible dates, numbers of too many digits and unclosed brackets.
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError, TypeError, AttributeError) as error:
        reason = shorten(str(error)) or type(error).__name__
        raise UserError(f"{source} is not valid YAML: {reason}\n{hint}") from error


def _plain(value):
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    # A NumPy scalar, which Python callers may pass.
    return value.item() if getattr(value, "ndim", None) == 0 else value


def first_difference(config: RunConfig, other: RunConfig) -> str | None:
    """Return the first setting in which two runs differ, as `name: value, not other value`; None if there is none."""
    return next(
        (f"{name}: {value}, not {second}" for name, (value, second) in differences(config, other).items()), None
    )


def differences(config: RunConfig, other: RunConfig) -> dict[str, tuple[Any, Any]]:
    """Return the settings in which two runs differ, by name (`optim.tau`): the values of both."""
    flat, flat_other = (_flat(asdict(c)) for c in (config, other))
    return {name: (value, flat_other[name]) for name, value in flat.items() if flat_other[name] != value}


def _flat(tree: dict, prefix: str = "") -> dict:
    flat = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
