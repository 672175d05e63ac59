"""Settings: what they say, that they survive a file, and what is said of a wrong one."""

from dataclasses import asdict, replace

import pytest
import yaml

from cdred.config import RunConfig, check, discount, preset, total_steps, total_updates
from cdred.config_file import first_difference, from_yaml, to_yaml
from cdred.errors import UserError

PRESETS = ["cpu", "paper", "debug"]


@pytest.mark.parametrize(
    ("episode_length", "gamma"), [(10, 0.95), (100, 0.95), (200, 0.975), (500, 0.99), (1000, 0.995), (5000, 0.995)]
)
def test_the_discount_follows_the_episodes_length(episode_length, gamma):
    assert discount(episode_length, 0.95) == pytest.approx(gamma)
    assert discount(episode_length, 0.98) == pytest.approx(max(gamma, 0.98))


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_survives_its_file(name):
    config = preset(name)
    assert config.preset == name
    assert from_yaml(to_yaml(config)) == config


def test_every_kind_of_setting_survives_its_file():
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


@pytest.mark.parametrize("name", PRESETS)
def test_a_presets_sizes_fit_each_other(name):
    config = preset(name)
    assert config.model.latent_dim % config.model.simnorm_dim == 0
    assert config.mppi.num_pi_trajs < config.mppi.num_samples
    assert config.mppi.num_elites < config.mppi.num_samples


def test_the_paper_preset_is_the_papers():
    paper = preset("paper")
    assert (paper.model.latent_dim, paper.model.hidden_dims, paper.model.num_critics) == (512, (512, 512), 5)
    assert (paper.reward.zeta, paper.reward.alpha, paper.reward.num_targets) == (0.8, 0.9, 5)
    assert paper.reward.predictor_hidden_dims == (1024, 1024, 1024)
    assert (paper.mppi.num_samples, paper.mppi.num_pi_trajs, paper.mppi.num_elites) == (512, 24, 64)
    assert (paper.mppi.iterations, paper.mppi.horizon, paper.optim.batch_size) == (6, 3, 256)
    assert (paper.optim.consistency_coef, paper.optim.value_coef, paper.optim.reward_coef) == (20.0, 0.1, 0.1)
    assert (paper.optim.tau, paper.optim.bc_coef, paper.reward.ema_rate) == (0.01, 0.0, 1.0)
    assert paper.mppi.policy_penalty_coef == 0.0
    assert (paper.model.normalize_obs, paper.optim.lr_decay_fraction) == (False, 0.0)


def test_decisions_are_rounded_up_to_whole_learn_calls():
    assert total_steps(replace(preset("debug"), steps=201)) == 220
    assert total_steps(replace(preset("debug"), steps=200)) == 200
    fewer = replace(preset("debug"), steps=201, steps_per_update=4)
    assert (total_steps(fewer), total_updates(fewer)) == (240, 60)


def test_absent_settings_take_their_defaults():
    config = from_yaml("task: gym/Pendulum-v1\nreward: {zeta: 1}\n")
    assert config == replace(RunConfig(), task="gym/Pendulum-v1", reward=replace(RunConfig().reward, zeta=1.0))
    assert isinstance(config.reward.zeta, float)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stepps: 10", "run.yaml: unknown setting stepps. Did you mean steps?"),
        ("optim: {batchsize: 10}", "run.yaml: unknown setting optim.batchsize. Did you mean optim.batch_size?"),
        ("qqqqqq: 1", "run.yaml: unknown setting qqqqqq."),
        ("steps: many", "run.yaml: steps must be int, got 'many'."),
        ("steps: 1.5", "run.yaml: steps must be int, got 1.5."),
        ("video: 1", "run.yaml: video must be bool, got 1."),
        ("steps: true", "run.yaml: steps must be int, got True."),
        ("reward: {coupling: log}", "run.yaml: reward.coupling must be one of identity, exp, got 'log'."),
        ("seeds: 3", "run.yaml: seeds must be"),
        ("seeds: [a]", "run.yaml: seeds must be int, got 'a'."),
        ("mppi: 3", "run.yaml: expected a mapping of settings under mppi., got 3."),
        ("", "run.yaml: expected a mapping of settings, got None."),
        ("a: [", "run.yaml is not YAML"),
    ],
)
def test_what_is_wrong_is_named(text, message):
    with pytest.raises(UserError) as error:
        from_yaml(text, "run.yaml")
    assert str(error.value).startswith(message)


def test_a_file_is_plain_yaml():
    assert yaml.safe_load(to_yaml(preset("debug")))["model"]["hidden_dims"] == [16, 16]
    assert yaml.safe_load(to_yaml(preset("debug"))).keys() == asdict(RunConfig()).keys() - {"out"}


def test_a_number_may_be_written_in_scientific_notation():
    assert from_yaml("optim: {learning_rate: 3e-4}").optim.learning_rate == 3e-4


def test_the_first_difference_names_the_setting():
    one = preset("cpu")
    assert first_difference(one, preset("cpu")) is None
    assert first_difference(replace(one, steps=7), one) == "steps: 7, not 5000"
    other = replace(one, reward=replace(one.reward, zeta=0.5))
    assert first_difference(one, other) == "reward.zeta: 0.8, not 0.5"


@pytest.mark.parametrize(
    ("part", "changes", "says"),
    [
        (None, {"envs": 3}, "--envs must divide --updates-per-call"),
        (None, {"seeds": (1, 1)}, "--seeds"),
        (None, {"seeds": ()}, "--seeds"),
        (None, {"steps": 0}, "--steps"),
        ("model", {"simnorm_dim": 5}, "--model.simnorm-dim must divide"),
        ("model", {"num_critics": 1}, "--model.num-critics"),
        ("optim", {"bc_coef": -1.0}, "--optim.bc-coef"),
        ("optim", {"imitation_updates": -1}, "--optim.imitation-updates"),
        ("sac", {"temperature": -1.0}, "--sac.temperature"),
        ("optim", {"tau": 0.0}, "--optim.tau"),
        ("reward", {"ema_rate": 0.0}, "--reward.ema-rate"),
        ("reward", {"ema_rate": 1.5}, "--reward.ema-rate"),
        ("mppi", {"num_elites": 17}, "--mppi.num-elites"),
        ("mppi", {"num_pi_trajs": 16}, "--mppi.num-pi-trajs"),
        ("mppi", {"min_std": 3.0}, "--mppi.min-std"),
        ("mppi", {"explore_min_std": 0.0}, "--mppi.explore-min-std"),
        ("optim", {"lr_decay_fraction": 1.5}, "--optim.lr_decay_fraction"),
        ("red", {"sigma": 0.0}, "--red.sigma"),
    ],
)
def test_settings_that_cannot_work_together_are_refused_by_name(part, changes, says):
    config = preset("debug")
    check(config)
    config = replace(config, **(changes if part is None else {part: replace(getattr(config, part), **changes)}))
    with pytest.raises(UserError, match=says):
        check(config)
