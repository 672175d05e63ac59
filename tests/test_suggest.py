"""Suggestions for misspelt names."""

import pytest

from cdred.cli.options import options_of
from cdred.config import RunConfig
from cdred.settings import setting_paths
from cdred.suggest import SETTING_ALIASES, did_you_mean, suggest_setting, suggest_value

KNOWN = ("point", "paint", "line")


@pytest.mark.parametrize(
    ("word", "options", "text"),
    [
        ("pint", {}, " Did you mean point?"),
        ("pint", {"num": 3}, " Did you mean point, paint?"),
        ("lne", {"prefix": "probe/"}, " Did you mean probe/line?"),
        ("xyz", {}, ""),
    ],
)
def test_suggestion(word, options, text):
    assert did_you_mean(word, KNOWN, **options) == text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("--lr", " Did you mean --optim.learning-rate?"),
        ("--learning_rate", " Did you mean --optim.learning-rate?"),
        ("--batch-size", " Did you mean --optim.batch-size?"),
        ("--updates", " Did you mean --steps, --pretrain.updates?"),
        ("--epochs", " Did you mean --steps?"),
        ("--num-envs", " Did you mean --envs?"),
        ("--workers", " Did you mean --vectorization?"),
        ("--output", " Did you mean --out?"),
        ("--outdir", " Did you mean --out?"),
        ("--gamma", " Did you mean --optim.discount-min?"),
        ("--horizon", " Did you mean --mppi.horizon?"),
        ("--seed", " Did you mean --seeds?"),
        ("--env", " Did you mean TASK?"),
        ("--mppi.horizn", " Did you mean --mppi.horizon?"),
        ("--mpi.horizon", " Did you mean --mppi.horizon?"),
        ("--stepss", " Did you mean --steps?"),
        ("--no-vidoe", " Did you mean --no-video?"),
        # Spelt like nothing, or like a short name by chance.
        ("--desicions", ""),
        ("--lx", ""),
        ("--weight-decay", ""),
    ],
)
def test_suggested_option(name, text):
    assert suggest_setting(name, options_of(RunConfig)) == text


def test_device_is_explained_instead_of_suggesting_an_option():
    for name in ("--device", "--gpu", "device"):
        assert "JAX_PLATFORMS" in suggest_setting(name, options_of(RunConfig))
        assert "Did you mean" not in suggest_setting(name, options_of(RunConfig))


def test_alias_of_an_absent_setting_is_not_suggested():
    assert suggest_setting("--lr", ["--out", "--steps"]) == ""


def test_aliases_are_of_existing_settings_and_hide_none():
    names = [".".join(path).replace("_", "-") for path in setting_paths(RunConfig)]
    assert SETTING_ALIASES.keys() <= set(names)
    words = " ".join(SETTING_ALIASES.values()).split()
    assert len(words) == len(set(words))
    assert not set(words) & set(names)


@pytest.mark.parametrize(
    ("word", "text"),
    [("sqil", " Did you mean b?"), ("AA", " Did you mean aa?"), ("xyz", ""), (3, ""), (None, "")],
)
def test_suggested_value(word, text, monkeypatch):
    monkeypatch.setattr("cdred.suggest.VALUE_ALIASES", {"b": "sqil c"})
    assert suggest_value(word, ("aa", "b")) == text
