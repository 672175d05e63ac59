"""The YAML file of a sweep: tasks, methods, groups of seeds, settings, and options that its runs have in common."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args

from cdred.config import AlgoName
from cdred.config_file import plain_yaml, read_text
from cdred.constraints import check_choice
from cdred.errors import UserError
from cdred.suggest import did_you_mean
from cdred.text import shorten

HINT = "A sweep is a YAML file with out, tasks, methods and seed_groups; settings and common are optional."
# Setting that is not part of names of folders and files.
DEFAULT = "default"
# Settings of a run that other entries of the file determine, and those entries.
AXES = {"task": "tasks", "algo": "methods", "seeds": "seed_groups", "out": "out"}

Options = dict[str, Any]


@dataclass(frozen=True)
class SweepFile:
    """Content of the file of a sweep. Options are settings of a run by name, as in its `config.yaml`.

    Attributes:
        out: output folder.
        tasks: options of each task.
        methods: options of each method.
        seed_groups: groups of seeds; those of a group are trained together, in one run.
        settings: options of each variant of the settings.
        common: options of all runs, which those of tasks, methods and settings override, in this order.
    """

    out: str
    tasks: dict[str, Options]
    methods: dict[str, Options]
    seed_groups: tuple[tuple[int, ...], ...]
    settings: dict[str, Options]
    common: Options


def read_sweep(path: Path) -> SweepFile:
    """Read and check the file of a sweep. The options of its runs are checked by `plan_runs`.

    Raises:
        UserError: it cannot be read, an entry is missing, unknown, or not of the expected form.
    """
    tree = plain_yaml(read_text(path, HINT), str(path), HINT)
    try:
        return _parse(tree)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _parse(tree: Any) -> SweepFile:
    if not isinstance(tree, dict):
        raise UserError(f"expected a mapping, got {shorten(repr(tree))}.\n{HINT}")
    known = [field.name for field in fields(SweepFile)]
    for key in tree:
        if key not in known:
            raise UserError(f"unknown entry {shorten(str(key))}.{did_you_mean(str(key), known)}\n{HINT}")
    for key in ("out", "tasks", "methods", "seed_groups"):
        if not tree.get(key):
            raise UserError(f"{key} is missing.\n{HINT}")
    if not isinstance(tree["out"], str):
        raise UserError(f"out should be a folder, got {shorten(repr(tree['out']))}.")
    tasks, methods = _by_name("tasks", tree["tasks"]), _by_name("methods", tree["methods"])
    for name in methods:
        check_choice("methods", name, get_args(AlgoName))
    settings = _by_name("settings", tree.get("settings") or {DEFAULT: None})
    for name in settings:
        if not re.fullmatch(r"[A-Za-z0-9][\w.+-]*", name):
            raise UserError(
                f"settings: the name {shorten(name)!r} becomes part of file names: use letters, digits and -.+_ only."
            )
    if settings.get(DEFAULT):
        raise UserError(
            f"settings.{DEFAULT} has options, expected none: it stands for the settings without changes. Put options "
            "of all runs under common, or name the setting otherwise."
        )
    common = _options("common", tree.get("common"))
    return SweepFile(tree["out"], tasks, methods, _seed_groups(tree["seed_groups"]), settings, common)


def _by_name(entry: str, value: Any) -> dict[str, Options]:
    """Return the options of each name in a list of names, which have none, or in a mapping."""
    if not isinstance(value, (dict, list)):
        raise UserError(
            f"{entry} should be a list of names, or a mapping of names to options, got {shorten(repr(value))}."
        )
    for name in value:
        if not isinstance(name, str):
            raise UserError(f"{entry}: expected a name, got {shorten(repr(name))}. Write names such as no in quotes.")
    if repeated := next((name for name in value if list(value).count(name) > 1), None):
        raise UserError(f"{entry}: {repeated} is given twice.")
    by_name = value if isinstance(value, Mapping) else dict.fromkeys(value)
    return {name: _options(f"{entry}.{name}", options) for name, options in by_name.items()}


def _options(entry: str, value: Any) -> Options:
    options = {} if value is None else value
    if not isinstance(options, dict):
        raise UserError(f"{entry} should be a mapping of options, got {shorten(repr(value))}.")
    for key, other in AXES.items():
        if key in options:
            raise UserError(f"{entry} has {key}, which {other} determines: remove it.")
    return options


def _seed_groups(value: Any) -> tuple[tuple[int, ...], ...]:
    if not isinstance(value, list) or not all(isinstance(group, list) and group for group in value):
        raise UserError(
            f"seed_groups should be a list of lists, as [[0, 1, 2]] for one run of three seeds or [[0], [1], [2]] for "
            f"three runs of one, got {shorten(repr(value))}."
        )
    seeds = [seed for group in value for seed in group]
    repeated = [seed for seed in seeds if seeds.count(seed) > 1]
    if repeated:
        raise UserError(f"seed_groups: seed {repeated[0]} is given twice, and would count twice.")
    return tuple(map(tuple, value))
