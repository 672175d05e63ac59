"""Settings: presets, YAML, and one validation for the command line, YAML files and Python."""

from copy import copy
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import yaml

from cdred.algos.cdred import CDREDConfig
from cdred.algos.red import REDConfig
from cdred.config import RunConfig, override, parse_settings, preset, total_steps, total_updates, validate
from cdred.config_file import first_difference, from_yaml, read_config, to_yaml
from cdred.errors import UserError

PRESETS = ["cpu", "paper", "debug"]


def with_values(settings, changes):
    """Return a copy with any values: the type checker that tests run with refuses wrong types in a constructor."""
    changed = copy(settings)
    for name, value in changes.items():
        object.__setattr__(changed, name, value)
    return changed


def debug_with(group, **changes):
    """Return the debug preset with changes in a group of settings, or at the top level if `group` is None."""
    config = preset("debug")
    changes = changes if group is None else {group: with_values(getattr(config, group), changes)}
    return with_values(config, changes)


@pytest.mark.parametrize("name", PRESETS)
def test_preset_is_valid(name):
    validate(preset(name))


@pytest.mark.parametrize("name", PRESETS)
def test_preset_round_trips_through_yaml(name):
    config = preset(name)
    assert config.preset == name
    assert from_yaml(to_yaml(config)) == config


def test_every_type_round_trips_through_yaml():
    config = replace(
        preset("debug"),
        task="dmc/walker-run",
        seeds=(3, 1),
        video=False,
        optim=replace(preset("debug").optim, learning_rate=1e-7, tau=1e-5),
        model=replace(preset("debug").model, hidden_dims=()),
    )
    assert from_yaml(to_yaml(config)) == config
    assert isinstance(from_yaml(to_yaml(config)).model.hidden_dims, tuple)


def test_paper_preset_equals_dataclass_defaults():
    assert preset("paper") == RunConfig()
    assert first_difference(preset("paper"), RunConfig()) is None
    for setting in fields(RunConfig):
        if is_dataclass(setting.default_factory):
            assert getattr(preset("paper"), setting.name) == setting.default_factory()


def test_paper_preset_has_the_papers_values():
    paper = preset("paper")
    assert (paper.model.latent_dim, paper.model.hidden_dims, paper.model.num_critics) == (512, (512, 512), 5)
    assert (paper.cdred.zeta, paper.cdred.alpha, paper.cdred.num_targets) == (0.8, 0.9, 5)
    assert paper.cdred.predictor_hidden_dims == (1024, 1024, 1024)
    assert paper.gail.hidden_dims == paper.red.predictor_hidden_dims == paper.cdred.predictor_hidden_dims
    assert paper.red.target_hidden_dims == paper.cdred.target_hidden_dims == (512, 512)
    assert (paper.mppi.num_samples, paper.mppi.num_pi_trajs, paper.mppi.num_elites) == (512, 24, 64)
    assert (paper.mppi.iterations, paper.mppi.horizon, paper.optim.batch_size) == (6, 3, 256)
    assert (paper.optim.consistency_coef, paper.optim.value_coef, paper.optim.reward_coef) == (20.0, 0.1, 0.1)
    assert (paper.optim.tau, paper.optim.bc_coef, paper.cdred.ema_rate) == (0.01, 0.0, 1.0)
    assert paper.mppi.policy_penalty_coef == 0.0
    assert (paper.model.normalize_obs, paper.optim.lr_decay_fraction) == (False, 0.0)


def test_steps_are_rounded_up_to_whole_calls():
    assert total_steps(replace(preset("debug"), steps=201)) == 220
    assert total_steps(replace(preset("debug"), steps=200)) == 200
    fewer_updates = replace(preset("debug"), steps=201, steps_per_update=4)
    assert (total_steps(fewer_updates), total_updates(fewer_updates)) == (240, 60)


def test_absent_settings_take_their_defaults():
    config = from_yaml("task: gym/Pendulum-v1\ncdred: {zeta: 1}\n")
    assert config == replace(RunConfig(), task="gym/Pendulum-v1", cdred=replace(RunConfig().cdred, zeta=1.0))
    assert isinstance(config.cdred.zeta, float)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stepps: 10", "run.yaml: unknown setting stepps. Did you mean steps?"),
        ("optim: {batchsize: 10}", "run.yaml: unknown setting optim.batchsize. Did you mean optim.batch_size?"),
        ("qqqqqq: 1", "run.yaml: unknown setting qqqqqq."),
        ("3: 4", "run.yaml: unknown setting 3."),
        ("steps: many", "run.yaml: steps should be a valid integer, got 'many'."),
        ("steps: 1.5", "run.yaml: steps should be a valid integer, got 1.5."),
        ("steps: true", "run.yaml: steps should be a valid integer, got True."),
        ("steps: null", "run.yaml: steps should be a valid integer, got None."),
        ("steps: {2020-01-01: 1}", "run.yaml: steps should be a valid integer, got "),
        ("video: 1", "run.yaml: video should be a valid boolean, got 1."),
        ("demos: 1.5", "run.yaml: demos should be a valid string, got 1.5."),
        ("algo: sqil", "run.yaml: algo should be 'cdred', "),
        ("planner: cem", "run.yaml: planner should be 'mppi' or 'policy', got 'cem'. Did you mean mppi?"),
        ("preset: fast", "run.yaml: preset should be 'cpu', 'paper' or 'debug', got 'fast'. Did you mean cpu?"),
        ("lr: 0.1", "run.yaml: unknown setting lr. Did you mean optim.learning_rate?"),
        ("mpi: {horizon: 4}", "run.yaml: unknown setting mpi. Did you mean mppi?"),
        ("device: cpu", "run.yaml: unknown setting device. There is no setting for the device: "),
        ("task: 2020-01-01", "run.yaml: task should be a valid string, got {'date': '2020-01-01'}."),
        ("optim: {tau: true}", "run.yaml: optim.tau should be a valid number, got True."),
        ("optim: {tau: '0.1'}", "run.yaml: optim.tau should be a valid number, got '0.1'."),
        ("cdred: {transform: sin}", "run.yaml: cdred.transform should be 'identity', 'exp' or 'log', got 'sin'."),
        ("seeds: true", "run.yaml: seeds should be a valid list, got True."),
        ("seeds: [a]", "run.yaml: seeds should be a valid integer, got 'a'."),
        ("seeds: [1, -1]", "run.yaml: seeds should be greater than or equal to 0, got -1."),
        ("model: {hidden_dims: [0]}", "run.yaml: model.hidden_dims should be greater than or equal to 1, got 0."),
        ("steps: 0", "run.yaml: steps should be greater than or equal to 1, got 0."),
        ("steps: 2147483648", "run.yaml: steps should be less than or equal to 2147483647, got 2147483648."),
        ("optim: {tau: .nan}", "run.yaml: optim.tau should be "),
        ("optim: {learning_rate: .nan}", "run.yaml: optim.learning_rate should be finite, got nan."),
        ("optim: {learning_rate: .inf}", "run.yaml: optim.learning_rate should be finite, got inf."),
        ("optim: {learning_rate: 1e999}", "run.yaml: optim.learning_rate should be finite, got inf."),
        ("mppi: 3", "run.yaml: mppi: expected a mapping of settings, got 3."),
        ("", "run.yaml: expected a mapping of settings, got None."),
        ("[1]", "run.yaml: expected a mapping of settings, got [1]."),
        ("a: [", "run.yaml is not valid YAML: "),
        ("steps: " + "9" * 5000, "run.yaml is not valid YAML: "),
        ("task: !!python/name:os.system", "run.yaml is not valid YAML: "),
        ("seeds: &a [1]\nmodel: *a", "run.yaml is not valid YAML: anchors and aliases are not allowed"),
    ],
)
def test_invalid_yaml_setting_is_named(text, message):
    with pytest.raises(UserError) as error:
        from_yaml(text, "run.yaml")
    assert str(error.value).startswith(message)


def test_yaml_is_readable_without_cdred():
    assert yaml.safe_load(to_yaml(preset("debug")))["model"]["hidden_dims"] == [16, 16]
    assert yaml.safe_load(to_yaml(preset("debug"))).keys() == asdict(RunConfig()).keys() - {"out"}


@pytest.mark.parametrize("text", ["3e-4", "3E-4", "0.3e-3", "+3e-4", "0.0003"])
def test_yaml_number_in_scientific_notation(text):
    assert from_yaml(f"optim: {{learning_rate: {text}}}").optim.learning_rate == pytest.approx(3e-4, rel=1e-12)


def test_first_difference_names_the_setting():
    config = preset("cpu")
    assert first_difference(config, preset("cpu")) is None
    assert first_difference(replace(config, steps=7), config) == "steps: 7, not 5000"
    other = replace(config, cdred=replace(config.cdred, zeta=0.5))
    assert first_difference(config, other) == "cdred.zeta: 0.8, not 0.5"


@pytest.mark.parametrize(
    ("group", "changes", "message"),
    [
        (None, {"envs": 3}, "--envs must divide --updates-per-call times --steps-per-update."),
        (None, {"seeds": (1, 1)}, "--seeds must be one or more different integers."),
        (None, {"seeds": ()}, "--seeds must be one or more different integers."),
        ("model", {"simnorm_dim": 5}, "--model.simnorm-dim must divide --model.latent-dim."),
        ("model", {"num_critics": 1}, "--model.num-critics must be at least 2."),
        ("model", {"dropout": 1.0}, "--model.dropout must be below 1."),
        ("cdred", {"num_targets": 1}, "--cdred.num-targets must be at least 2."),
        (
            "cdred",
            {"zeta": 0.0, "zeta_schedule": "ratio"},
            "--cdred.zeta-schedule ratio needs --cdred.zeta above 0.",
        ),
        (
            "cdred",
            {"input_gradient": True, "input": "state"},
            "--cdred.input-gradient needs a world model and --cdred.input state-action or transition.",
        ),
        (
            "pretrain",
            {"updates": 0, "encoder_loss": "consistency"},
            "--pretrain.encoder-loss consistency needs pretraining (--pretrain.updates) of a world model.",
        ),
        ("mppi", {"num_elites": 17}, "--mppi.num-elites must be at most --mppi.num-samples."),
        ("mppi", {"num_pi_trajs": 16}, "--mppi.num-pi-trajs must be below --mppi.num-samples."),
        ("mppi", {"min_std": 3.0}, "--mppi.min-std must be at most --mppi.max-std."),
        ("mppi", {"explore_min_std": 3.0}, "--mppi.explore-min-std must be at most --mppi.max-std."),
    ],
)
def test_contradicting_settings_are_refused(group, changes, message):
    with pytest.raises(UserError) as error:
        validate(debug_with(group, **changes))
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("group", "changes", "message"),
    [
        (None, {"steps": 0}, "--steps should be greater than or equal to 1, got 0."),
        (None, {"steps": 2**31}, "--steps should be less than or equal to 2147483647, got 2147483648."),
        (None, {"steps": 10**30}, "--steps should be less than or equal to 2147483647, got 1000"),
        (None, {"seeds": (0, -1)}, "--seeds should be greater than or equal to 0, got -1."),
        (None, {"seeds": (2**32,)}, "--seeds should be less than or equal to 2147483647, got 4294967296."),
        (None, {"env_step_timeout": 0.0}, "--env-step-timeout should be greater than 0, got 0.0."),
        ("optim", {"bc_coef": -1.0}, "--optim.bc-coef should be greater than or equal to 0, got -1.0."),
        ("optim", {"tau": 0.0}, "--optim.tau should be greater than 0, got 0.0."),
        ("optim", {"lr_decay_fraction": 1.5}, "--optim.lr-decay-fraction should be less than or equal to 1, got 1.5."),
        ("sac", {"entropy_coef": -1.0}, "--sac.entropy-coef should be greater than or equal to 0, got -1.0."),
        ("cdred", {"ema_rate": 0.0}, "--cdred.ema-rate should be greater than 0, got 0.0."),
        ("cdred", {"ema_rate": 1.5}, "--cdred.ema-rate should be less than or equal to 1, got 1.5."),
        ("mppi", {"explore_min_std": 0.0}, "--mppi.explore-min-std should be greater than 0, got 0.0."),
        ("red", {"sigma": 0.0}, "--red.sigma should be greater than 0, got 0.0."),
        ("iq", {"chi2_coef": 0.0}, "--iq.chi2-coef should be greater than 0, got 0.0."),
    ],
)
def test_value_out_of_range_is_refused(group, changes, message):
    with pytest.raises(UserError) as error:
        validate(debug_with(group, **changes))
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), np.float32("nan"), np.float64("inf")])
def test_non_finite_number_is_refused_everywhere(value):
    """In every number of every group, whichever range it has."""
    config = preset("debug")
    groups = {None: config} | {s.name: getattr(config, s.name) for s in fields(config)}
    refused = 0
    for group, settings in groups.items():
        for setting in fields(settings) if is_dataclass(settings) else ():
            if isinstance(getattr(settings, setting.name), (int, float)):
                option = "--" + ".".join(filter(None, (group, setting.name))).replace("_", "-")
                with pytest.raises(UserError) as error:
                    validate(debug_with(group, **{setting.name: value}))
                assert str(error.value).startswith(f"{option} should be ")
                refused += 1
    assert refused > 50


@pytest.mark.parametrize(
    ("group", "changes", "message"),
    [
        (None, {"steps": "ten"}, "--steps should be a valid integer, got 'ten'."),
        (None, {"steps": 1.5}, "--steps should be a valid integer, got 1.5."),
        (None, {"steps": None}, "--steps should be a valid integer, got None."),
        (None, {"steps": True}, "--steps should be a valid integer, got True."),
        (None, {"steps": np.float64(7.0)}, "--steps should be a valid integer, got 7.0."),
        (None, {"steps": object()}, "--steps should be a valid integer, got {'object': "),
        (None, {"task": b"x"}, "--task should be a valid string, got {'bytes': "),
        (None, {"video": 1}, "--video should be a valid boolean, got 1."),
        (None, {"seeds": (1, "a")}, "--seeds should be a valid integer, got 'a'."),
        (None, {"seeds": np.arange(3)}, "--seeds should be a valid list, got {'ndarray': '[0 1 2]'}."),
        (None, {"optim": 3}, "--optim: expected a mapping of settings, got 3."),
        (None, {"algo": "bcc"}, "--algo should be 'cdred', "),
        (None, {"mppi": {"horizon": 4}}, "--mppi should be a MPPIConfig, got a dict: "),
        (None, {"red": CDREDConfig()}, "--red should be a REDConfig, got a CDREDConfig: "),
        ("optim", {"tau": True}, "--optim.tau should be a valid number, got True."),
        ("optim", {"tau": "0.1"}, "--optim.tau should be a valid number, got '0.1'."),
    ],
)
def test_value_of_wrong_type_is_refused(group, changes, message):
    with pytest.raises(UserError) as error:
        validate(debug_with(group, **changes))
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("group", "changes", "plain"),
    [
        (None, {"steps": np.int64(7)}, {"steps": 7}),
        (None, {"seeds": (np.int32(3), np.int64(4))}, {"seeds": (3, 4)}),
        (None, {"video": np.bool_(False)}, {"video": False}),
        ("optim", {"tau": np.float32(0.5)}, {"tau": 0.5}),
        ("optim", {"tau": np.array(0.5)}, {"tau": 0.5}),
    ],
)
def test_numpy_scalars_are_accepted_and_saved(group, changes, plain):
    config, expected = debug_with(group, **changes), debug_with(group, **plain)
    assert validate(config) == expected
    assert from_yaml(to_yaml(config)) == expected


@pytest.mark.parametrize(
    ("changes", "declared"),
    [
        ({"seeds": 3}, {"seeds": (3,)}),
        ({"seeds": [2, 1]}, {"seeds": (2, 1)}),
        ({"seeds": range(2)}, {"seeds": (0, 1)}),
        ({"demos": 7}, {"demos": "7"}),
        ({"demos": Path("a/b"), "out": Path("c")}, {"demos": "a/b", "out": "c"}),
    ],
)
def test_short_forms_become_the_declared_types(changes, declared):
    assert repr(validate(debug_with(None, **changes))) == repr(debug_with(None, **declared))


def test_short_forms_in_yaml():
    assert from_yaml("seeds: 3\ndemos: 7") == RunConfig(seeds=(3,), demos="7")


def literal_settings(cls, path=()):
    """Path and a misspelt value of every setting with a choice of values."""
    for name, hint in get_type_hints(cls).items():
        if is_dataclass(hint):
            yield from literal_settings(hint, (*path, name))
        elif get_origin(hint) is Literal:
            yield (*path, name), f"{get_args(hint)[0]}x"


def test_every_choice_is_checked_with_a_hint():
    settings = dict(literal_settings(RunConfig))
    assert {("algo",), ("planner",), ("preset",), ("vectorization",), ("precision", "model")} < settings.keys()
    for path, wrong in settings.items():
        *group, name = path
        with pytest.raises(UserError) as error:
            validate(debug_with(*group or [None], **{name: wrong}))
        option = "--" + ".".join(path).replace("_", "-")
        assert str(error.value).startswith(f"{option} should be ")
        assert str(error.value).endswith(f"got '{wrong}'. Did you mean {wrong[:-1]}?")


def test_override_changes_single_settings_of_a_group():
    config = override(preset("cpu"), {"steps": 7, "mppi": {"horizon": 4}, "red": REDConfig()})
    assert config == replace(
        preset("cpu"), steps=7, mppi=replace(preset("cpu").mppi, horizon=4), red=preset("paper").red
    )


def test_parsed_settings_have_the_declared_types():
    config = parse_settings({"optim": {"tau": 1}, "seeds": [2, 1], "model": {"hidden_dims": []}}, ".".join)
    assert isinstance(config.optim.tau, float)
    assert (config.seeds, config.model.hidden_dims) == ((2, 1), ())


def test_unknown_option_is_named_with_suggestion():
    with pytest.raises(UserError) as error:
        parse_settings({"cdred": {"zta": 1.0}}, lambda path: "--" + ".".join(path))
    assert str(error.value) == "unknown setting --cdred.zta. Did you mean --cdred.zeta?"


def test_contradiction_in_a_file_names_the_file(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(debug_with("mppi", num_elites=17)))
    with pytest.raises(UserError) as error:
        read_config(path)
    assert str(error.value) == f"{path}: --mppi.num-elites must be at most --mppi.num-samples."


def test_unknown_preset_is_refused_with_a_suggestion():
    with pytest.raises(UserError, match=r"'cpu', 'paper' or 'debug', got 'cup'\. Did you mean cpu\?"):
        preset("cup")
