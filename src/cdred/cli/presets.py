"""Settings of a run on a command line: the preset, which determines their defaults, and those that the help shows."""

import argparse
from collections.abc import Sequence
from typing import get_args

from cdred.config import PresetName, RunConfig, preset

# Settings that `--help` shows. The others, and the groups of settings, are shown by `--help-all`.
MAIN_SETTINGS = (
    "task",
    "imports",
    "algo",
    "demos",
    "num_validation_demos",
    "allow_variable_horizon",
    "steps",
    "seeds",
    "preset",
    "out",
    "envs",
    "vectorization",
    "planner",
    "eval_every",
    "eval_episodes",
    "final_eval_episodes",
    "log_every",
    "checkpoint_every",
    "video",
    "trackers",
)


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
