"""The command line: help, exit codes, options, and the documented commands from demonstrations to a report."""

import importlib
import re
import tomllib
from pathlib import Path

import pytest

from cdred.cli.compare import CompareOptions
from cdred.cli.compare import parse as parse_compare
from cdred.cli.evaluate import EvalOptions
from cdred.cli.main import VERBS, main
from cdred.cli.options import check_options, options_of
from cdred.cli.presets import MAIN_SETTINGS
from cdred.cli.train import parse
from cdred.cli.train_expert import TrainExpertOptions, run_config
from cdred.config import RunConfig
from cdred.errors import UserError

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


def test_help_lists_every_verb(capsys):
    assert main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if line.startswith("  ")] == list(VERBS)
    training, sharing = {"train", "compare", "sweep", "study", "train-expert"}, {"push", "pull"}
    assert set(VERBS) == training | sharing | {"eval", "demos", "bench", "report", "tasks", "doctor", "export"}


@pytest.mark.parametrize(("verb", "resumes"), [("train", True), ("sweep", True), ("push", False), ("eval", False)])
def test_interrupted_verb_says_if_it_resumes(monkeypatch, capsys, verb, resumes):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib.import_module(VERBS[verb][0]), "main", interrupt)
    assert main([verb]) == 130
    message = capsys.readouterr().err
    assert message.startswith("cdred: interrupted")
    assert ("resumes from the last checkpoint" in message) == resumes


def test_version(capsys):
    assert main(["--version"]) == 0
    name, number = capsys.readouterr().out.split()
    assert name == "cdred"
    assert number.split(".") == tomllib.loads(PYPROJECT.read_text())["project"]["version"].split(".")


def test_windows_is_refused(monkeypatch, capsys):
    monkeypatch.setattr("sys.platform", "win32")
    assert main(["--version"]) == 2
    assert "use WSL 2" in capsys.readouterr().err


def test_values_of_options_are_not_taken_for_others():
    """A task after the value of a choice, negative numbers, and None."""
    check_options(RunConfig, ["--algo", "bc", "probe/point", "--seeds", "-1", "--out", "-x1"], "cdred train")
    check_options(EvalOptions, ["run", "--planner", "None"], "cdred eval")
    check_options(CompareOptions, ["probe/point", "--algos", "bc", "gail", "--model.no_normalize_obs"], "cdred compare")
    with pytest.raises(UserError, match=r"'gial'.*Did you mean gail"):
        check_options(CompareOptions, ["probe/point", "--algos", "bc", "gial"], "cdred compare")


def shown_options(arguments, capsys):
    """Return the help that `cdred ARGUMENTS` prints, and the options in it, without the two of the help itself."""
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 0
    text = capsys.readouterr().out
    return text, set(re.findall(r"(?<=[ ,│])--[a-z][\w.-]*", text)) - {"--help", "--help-all"}


def test_options_are_those_of_the_parser(capsys):
    """Every option that the full help shows, and no other, passes the check."""
    _, shown = shown_options(["train", "--help-all"], capsys)
    assert {name for name in options_of(RunConfig) if name.startswith("--")} == shown


@pytest.mark.parametrize(("verb", "others"), [("train", {"--algo"}), ("compare", {"--algos"})])
def test_help_shows_the_main_options_and_how_to_see_the_others(verb, others, capsys):
    text, shown = shown_options([verb, "--help"], capsys)
    main_options = {"--" + name.replace("_", "-") for name in MAIN_SETTINGS} - {"--task", "--algo"} | others
    flags = {"--no-video", "--no-allow-variable-horizon"}
    assert shown == main_options | flags | {"--import", "--track"}
    assert f"`cdred {verb} --help-all` shows all options" in text.splitlines()[-1]
    full, all_options = shown_options([verb, "--help-all"], capsys)
    assert shown | {"--mppi.horizon", "--buffer-size"} < all_options
    assert "--help-all" not in full


def test_unknown_option_points_to_the_help_of_all_options(capsys):
    assert main(["train", "probe/point", "--nowhere", "1"]) == 2
    assert "Run `cdred train --help-all`" in capsys.readouterr().err
    assert main(["eval", "run", "--nowhere", "1"]) == 2
    assert "Run `cdred eval --help`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("verb", "option"), [*((verb, "--help") for verb in VERBS), ("train", "--help-all"), ("compare", "--help-all")]
)
def test_help_of_a_verb_has_no_references_to_the_repository(verb, option, capsys):
    text, _ = shown_options([verb, option], capsys)
    assert text.startswith(f"usage: cdred {verb}")
    # The default of `cdred study --out` is a folder of the user.
    text = text.replace("default: results/studies", "")
    assert not any(folder in text for folder in ("docs/", "results/", "examples/", "README", "`make"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "unknown verb 'trian'"),
        (["train", "probe/pint", "--out", "OUT"], "Did you mean probe/point?"),
        (["train", "nowhere/task", "--out", "OUT"], "no suite 'nowhere'"),
        (["train", "probe/point", "--demos", "missing.npz", "--out", "OUT"], "missing.npz"),
        (["eval", "OUT"], "is not a run"),
        (["demos", "info", "OUT"], "no demonstrations at"),
        (["demos", "collect", "probe/dying", "--out", "OUT"], "no scripted expert"),
    ],
)
def test_user_error_is_a_short_message_with_exit_code_2(arguments, message, tmp_path, capsys):
    arguments = [str(tmp_path / "out") if argument == "OUT" else argument for argument in arguments]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") <= 3
    assert "Traceback" not in error


def test_options_override_the_named_preset():
    config = parse(["probe/point", "--preset", "debug", "--seeds", "3", "4", "--mppi.horizon", "4", "--demos", "7"])
    assert (config.task, config.seeds, config.mppi.horizon, config.demos) == ("probe/point", (3, 4), 4, "7")
    assert config.optim.batch_size == 8
    assert parse(["probe/point", "--preset=paper"]).optim.batch_size == 256
    assert parse(["probe/point"]).optim.batch_size == 64


@pytest.mark.parametrize("option", [["--algo", "gail"], ["--algo=gail"]])
def test_algo_is_read_before_the_other_options(option):
    config = parse(["probe/point", *option, "--preset", "debug", "--seeds", "1"])
    assert (config.algo, config.preset, config.seeds, config.optim.batch_size) == ("gail", "debug", (1,), 8)


def test_boolean_options_have_a_negative_form():
    assert parse(["probe/point"]).video
    config = parse(["probe/point", "--no-video", "--model.no-normalize-obs"])
    assert (config.video, config.model.normalize_obs) == (False, False)
    assert parse(["probe/point", "--no-video", "--video"]).video


def test_compare_takes_the_options_of_train_except_algo(capsys):
    options = parse_compare(["probe/point", "--preset", "debug", "--algos", "bc", "gail", "--no-video", "--out", "x"])
    assert (options.algos, options.preset, options.video, options.out) == (("bc", "gail"), "debug", False, "x")
    assert options.optim.batch_size == 8
    assert main(["compare", "probe/point", "--algo", "bc", "--out", "x"]) == 2
    assert "--algo" in capsys.readouterr().err


def test_train_expert_starts_from_the_preset_of_tdmpc2(tmp_path):
    options = TrainExpertOptions("probe/point", tmp_path, preset="debug", steps=40, seeds=(2,), run="r")
    config = run_config(options)
    assert (config.algo, config.preset, config.steps, config.seeds, config.out) == ("tdmpc2", "debug", 40, (2,), "r")
    assert config.optim.batch_size == 8
