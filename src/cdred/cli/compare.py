"""`cdred compare`."""

from dataclasses import dataclass, fields

import tyro

from cdred.cli.train import preset_in
from cdred.cli.words import understood
from cdred.config import AlgoName, RunConfig, preset


@dataclass(frozen=True)
class Compare(RunConfig):
    """Train several methods with the same settings, demonstrations and seeds, one after another, and compare them.

    The same command again resumes. OUT gets a folder per method, table.md, table.json and curves.png.
    """

    algo: tyro.conf.Suppress[AlgoName] = "cdred"
    algos: tuple[AlgoName, ...] = ("cdred", "iqmpc", "iqlearn-sac", "gail", "red", "bc")
    """The methods; the others are held against the first."""


def main(arguments: list[str]) -> None:
    """Read the settings, train, print the table."""
    start = preset(preset_in(arguments))
    options = understood(
        lambda words: tyro.cli(
            Compare,
            args=words,
            default=Compare(**_settings(start)),
            prog="cdred compare",
            config=(tyro.conf.FlagConversionOff,),
        ),
        arguments,
        "cdred compare",
    )
    from cdred.api import compare  # after parsing: a wrong option should not have to wait for JAX

    print(compare(RunConfig(**_settings(options)), options.algos))


def _settings(config: RunConfig) -> dict:
    return {field.name: getattr(config, field.name) for field in fields(RunConfig)}
