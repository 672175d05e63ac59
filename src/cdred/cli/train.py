"""`cdred train`."""

from itertools import pairwise
from typing import cast, get_args

import tyro

from cdred.cli.words import understood
from cdred.config import PresetName, RunConfig, preset
from cdred.errors import UserError


def main(arguments: list[str]) -> None:
    """Read the settings and train."""
    config = parse(arguments)
    from cdred.api import run_folder, train  # after parsing: a wrong option should not have to wait for JAX

    train(config)
    print(f"finished: {run_folder(config)}")


def parse(arguments: list[str]) -> RunConfig:
    """Settings from command-line words, on top of the preset that they name."""
    default = preset(preset_in(arguments))
    return understood(
        lambda words: tyro.cli(
            RunConfig,
            args=words,
            default=default,
            prog="cdred train",
            description="Train an agent from demonstrations. Everything is kept in the run folder; "
            "the same command again resumes.",
            config=(tyro.conf.FlagConversionOff,),
        ),
        arguments,
        "cdred train",
    )


def preset_in(arguments: list[str]) -> PresetName:
    """The preset must be known before the other options, whose defaults it sets."""
    named = [word.partition("=")[2] for word in arguments if word.startswith("--preset=")]
    named += [after for word, after in pairwise(arguments) if word == "--preset"]
    name = named[-1] if named else "cpu"
    if name not in get_args(PresetName):
        raise UserError(f"--preset {name}: there are {', '.join(get_args(PresetName))}.")
    return cast(PresetName, name)
