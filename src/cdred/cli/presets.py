"""Preset of a command line, which determines the defaults of all other options."""

import argparse
from collections.abc import Sequence
from typing import get_args

from cdred.config import PresetName, RunConfig, preset


def preset_config(arguments: Sequence[str]) -> RunConfig:
    """Return the settings that `--preset` selects: the defaults of all other options.

    An unknown or missing name selects `cpu`; the parser of all options reports it afterwards.

    Args:
        arguments: the words after the verb.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--preset", nargs="?")
    named, _ = parser.parse_known_args(arguments)
    return preset(named.preset if named.preset in get_args(PresetName) else "cpu")
