"""Settings of a run as frozen dataclasses; the fields' docstrings are the command line's help.

The defaults are the paper's. A preset overrides some of them by keyword.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, is_dataclass, replace
from typing import Annotated, Any, Literal, get_args

import numpy as np
import tyro

from cdred.algos.cdred import CDREDConfig
from cdred.algos.gail import GAILConfig
from cdred.algos.iq_learn import IQLearnConfig
from cdred.algos.optim import OptimConfig
from cdred.algos.pretrain import PretrainConfig
from cdred.algos.red import REDConfig
from cdred.algos.sac_agent import SACConfig
from cdred.constraints import NonNegativeInt, Positive, PositiveInt, check_choice
from cdred.errors import UserError
from cdred.models.world_model import ModelConfig
from cdred.planning.mppi import MPPIConfig
from cdred.settings import SettingName, config_groups, parse, refuse_unknown
from cdred.task_name import IMAGE_SIZE, ObsKind, has_images, reconcile_obs
from cdred.types import Precision, PresetName, TrackerName, VectorizationMode

AlgoName = Literal["cdred", "iqmpc", "gail", "red", "iqlearn-sac", "gail-sac", "red-sac", "cdred-sac", "bc", "tdmpc2"]
MODEL_FREE: tuple[AlgoName, ...] = ("iqlearn-sac", "gail-sac", "red-sac", "cdred-sac")
PlannerName = Literal["mppi", "policy"]


@dataclass(frozen=True)
class PrecisionConfig:
    """Precision of the inputs of matrix products; sums, losses and optimisers are float32."""

    model: Precision = "float32"
    """Encoder, dynamics, critics, policy and termination head."""
    reward: Precision = "float32"
    """Reward model's networks; their squared differences are float32."""


@dataclass(frozen=True)
class RunConfig:
    """One training run."""

    task: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TASK")] = ""
    """Task: metaworld/<task>, dmc/<domain>-<task>, maniskill/<Task>, mjx/<Task>, gym/<id>, or env/<module>:<function>,
    a function that makes Gymnasium environments."""
    imports: Annotated[tuple[str, ...], tyro.conf.arg(aliases=("--import",))] = ()
    """Modules that register environments of your own with Gymnasium: names on the import path, or paths of .py files.
    They are imported before the task is made, also by `cdred eval` and in worker processes."""
    obs: ObsKind = "state"
    """What the agent observes: the suite's own observation, camera images (pixels), or both (dmc, metaworld, gym, env;
    not without a world model). It is part of the task's name: dmc/walker-walk?obs=pixels."""
    image_size: PositiveInt = IMAGE_SIZE
    """Height and width of the camera images, 32 to 256 pixels."""
    algo: AlgoName = "cdred"
    """Algorithm. On a world model with MPPI: cdred, iqmpc, gail, red, and tdmpc2, which learns from the environment's
    reward and uses no demonstrations. On raw observations with soft actor-critic: cdred-sac, iqlearn-sac, gail-sac,
    red-sac. Behavioural cloning: bc, which makes as many updates as the others and steps no environment."""
    demos: str = "10"
    """Demonstrations: a number (bundled or scripted ones), the path of a file or folder, or what is downloaded:
    `hf://datasets/OWNER/NAME[/PATH][@REVISION]` from the Hugging Face hub, or a Minari dataset, `minari://ID`."""
    init_from: str = ""
    """Folder of another run, for fine-tuning: training begins with its networks and its normalisation of observations.
    It needs the same observations, actions, seeds and settings of the model, and the same algorithm; bc also begins
    with the runs of algorithms with a world model."""
    num_validation_demos: NonNegativeInt = 0
    """Number of demonstrations, the last ones, that are kept for validation: they are measured on, not trained on."""
    allow_variable_horizon: bool = False
    """Accept demonstrations that were truncated at different lengths."""
    steps: PositiveInt = 500_000
    """Environment steps per seed, over all its environments, in whole calls of `updates_per_call` updates."""
    seeds: tuple[NonNegativeInt, ...] = (0,)
    """Random seeds, trained together in one compiled program; results do not depend on which seeds run together."""
    preset: PresetName = "paper"
    """Starting point that the other options override: cpu (two cores, minutes), paper (published sizes), debug
    (seconds)."""
    out: str = ""
    """Run folder; runs/<task>-<algo>-<preset> if empty."""
    envs: PositiveInt = 1
    """Environments per seed."""
    vectorization: VectorizationMode = "sync"
    """How environments are stepped: in the calling thread (sync), in threads, or in processes; results are identical.
    With sync, simulators in JAX (mjx) are stepped on the device, in one compiled program with acting and learning."""
    env_step_timeout: Positive = 60.0
    """Seconds that an environment step may take in a process of its own (--vectorization process, maniskill) before the
    process is restarted; resets may take ten times as long. With sync and thread there is no limit."""
    random_episodes: PositiveInt = 5
    """Episodes of random actions before learning begins; with pretraining, pretrain.steps instead."""
    updates_per_call: PositiveInt = 20
    """Updates in one compiled call, made after as many environment steps as they need."""
    steps_per_update: PositiveInt = 1
    """Environment steps per update, the inverse of the update-to-data ratio; for runs with many environments."""
    buffer_size: PositiveInt = 1_000_000
    """Maximum number of transitions kept per environment; no more is allocated than the run can fill."""
    replay_images: Literal["device", "host"] = "device"
    """Memory that holds the camera images of the agent's replay buffer: the device's, or the host's, from where each
    update's images are copied while the one before runs."""
    planner: PlannerName = "mppi"
    """How the agent acts: by MPPI planning, or by its policy, as bc and the methods on raw observations always do."""
    collect_with: Literal["planner", "policy"] = "planner"
    """How the agent acts while it collects data: by the planner, or by the policy with noise of mppi.explore_min_std,
    which is faster, while the planner acts in evaluations. Only with --planner mppi."""
    eval_every: PositiveInt = 20_000
    """Environment steps between evaluations."""
    eval_episodes: PositiveInt = 5
    """Episodes per evaluation during training, without exploration noise, from initial states unseen in training."""
    final_eval_episodes: PositiveInt = 20
    """Episodes of the last evaluation."""
    log_every: PositiveInt = 1000
    """Environment steps between log lines."""
    checkpoint_every: PositiveInt = 20_000
    """Environment steps between checkpoints."""
    video: bool = True
    """Record a video of expert and agent side by side at the end, where the task can be rendered."""
    trackers: Annotated[tuple[TrackerName, ...], tyro.conf.arg(aliases=("--track",))] = ()
    """Experiment trackers that get all metrics as well, each an extra (`pip install 'cdred[wandb]'`). The file
    metrics.jsonl is always written. A tracker that fails is switched off, and the run goes on."""
    model: ModelConfig = field(default_factory=ModelConfig)
    precision: PrecisionConfig = field(default_factory=PrecisionConfig)
    cdred: CDREDConfig = field(default_factory=CDREDConfig)
    iq: IQLearnConfig = field(default_factory=IQLearnConfig)
    gail: GAILConfig = field(default_factory=GAILConfig)
    red: REDConfig = field(default_factory=REDConfig)
    sac: SACConfig = field(default_factory=SACConfig)
    mppi: MPPIConfig = field(default_factory=MPPIConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)


def preset(name: PresetName) -> RunConfig:
    """Return the settings of a preset: `paper` (the defaults), `cpu` (two cores, minutes) or `debug` (seconds).

    Raises:
        UserError: there is no such preset.
    """
    check_choice("--preset", name, get_args(PresetName))
    return {"paper": RunConfig, "cpu": _cpu, "debug": _debug}[name]()


def _cpu() -> RunConfig:
    hidden = (128, 128)
    return RunConfig(
        preset="cpu",
        steps=5000,
        eval_every=2500,
        checkpoint_every=1000,
        log_every=100,
        model=ModelConfig(
            latent_dim=128,
            encoder_hidden_dims=(128,),
            hidden_dims=hidden,
            num_critics=2,
            normalize_obs=True,
            min_obs_std=0.3,
            encoder_layer_norm=False,
            residual_dynamics=True,
            dropout=0.0,
        ),
        cdred=CDREDConfig(target_hidden_dims=hidden, predictor_hidden_dims=hidden, ema_rate=0.01),
        gail=GAILConfig(hidden_dims=hidden),
        red=REDConfig(target_hidden_dims=hidden, predictor_hidden_dims=hidden),
        mppi=MPPIConfig(
            num_samples=64,
            num_pi_trajs=16,
            num_elites=16,
            iterations=3,
            explore_min_std=0.2,
            policy_penalty_coef=0.1,
        ),
        optim=OptimConfig(batch_size=64, encoder_lr_scale=1 / 3, bc_coef=10.0, tau=0.05, lr_decay_fraction=0.2),
        pretrain=PretrainConfig(updates=3000, obs_noise_std=0.02, selection_episodes=10),
    )


def _debug() -> RunConfig:
    cpu, hidden = _cpu(), (16, 16)
    nets: dict[str, Any] = {"embedding_dim": 8, "target_hidden_dims": hidden, "predictor_hidden_dims": hidden}
    model = {"latent_dim": 16, "encoder_hidden_dims": (16,), "hidden_dims": hidden, "num_bins": 21}
    return replace(
        cpu,
        preset="debug",
        steps=200,
        random_episodes=1,
        eval_every=100,
        eval_episodes=1,
        final_eval_episodes=2,
        checkpoint_every=100,
        log_every=20,
        model=replace(cpu.model, **model),
        cdred=replace(cpu.cdred, num_targets=3, **nets),
        gail=replace(cpu.gail, hidden_dims=hidden),
        red=replace(cpu.red, **nets),
        mppi=replace(cpu.mppi, num_samples=16, num_pi_trajs=4, num_elites=4, iterations=2),
        optim=replace(cpu.optim, batch_size=8, reward_warmup_updates=20),
        pretrain=replace(cpu.pretrain, updates=40, steps=1, selection_episodes=1),
    )


def validate(config: RunConfig) -> RunConfig:
    """Check settings, wherever they come from: types and ranges of all fields, then combinations.

    Returns:
        The same settings, of the declared types: a list or an integer of seeds becomes a tuple, a path a string.

    Raises:
        UserError: for the first setting that is refused, by its option's name.
    """
    _check_groups(config)
    parsed = parse_settings(_tree(config), lambda path: "--" + ".".join(path).replace("_", "-"))
    for requirement, met in _combinations(parsed).items():
        if not met:
            raise UserError(f"{requirement}.")
    task, obs, image_size = reconcile_obs(parsed.task, parsed.obs, parsed.image_size)
    return replace(parsed, task=task, obs=obs, image_size=image_size)


def _check_groups(config: RunConfig) -> None:
    """Refuse groups of settings of another type, whose absent settings would be taken for the paper's."""
    for key, cls in config_groups(RunConfig).items():
        value = getattr(config, key)
        if isinstance(value, Mapping) or (is_dataclass(value) and not isinstance(value, cls)):
            raise UserError(
                f"--{key} should be a {cls.__name__}, got a {type(value).__name__}: change some of its settings with "
                f"cdred.train(config, {key}={{...}}) or dataclasses.replace."
            )


def _tree(settings: Any) -> dict[str, Any]:
    """Return settings as nested mappings. Values are not copied: they may be of any type until they are checked."""
    return {key: _tree(value) if is_dataclass(value) else value for key, value in vars(settings).items()}


def override(config: RunConfig, changes: Mapping[str, Any]) -> RunConfig:
    """Return `config` with other values of the settings in `changes`. Names are checked, values are not.

    Args:
        config: settings.
        changes: value by name. That of a group is its config object, which replaces the group, or a mapping of some of
            its settings, which changes those.

    Raises:
        UserError: for an unknown name.
    """
    known = config_groups(RunConfig)
    partial = {key: dict(value) for key, value in changes.items() if key in known and isinstance(value, Mapping)}
    names = {key: None for key in changes if key not in known}
    refuse_unknown(RunConfig, names | partial, ".".join)
    groups = {key: replace(getattr(config, key), **tree) for key, tree in partial.items()}
    return replace(config, **{**changes, **groups})


def needs_actions(config: RunConfig) -> bool:
    """Return True if the algorithm learns from the actions of demonstrations, beyond BC terms and pretraining."""
    reward = getattr(config, config.algo.removesuffix("-sac"), None)
    return getattr(reward, "input", "state-action") == "state-action"


def without_actions(config: RunConfig) -> RunConfig:
    """Return the settings for demonstrations without actions: no pretraining and no BC terms."""
    pretrain = replace(config.pretrain, updates=0, encoder_loss="bc", propose_actions=False, self_imitation_coef=0.0)
    return replace(config, pretrain=pretrain, optim=replace(config.optim, bc_coef=0.0, bc_encoder_coef=0.0))


def _combinations(config: RunConfig) -> dict[str, bool]:
    mppi, model, pretrain, coupled = config.mppi, config.model, config.pretrain, config.cdred
    pretrains = pretrain.updates > 0
    needs_planner = "needs --planner mppi and an algorithm with a world model"
    plans = config.planner == "mppi" and config.algo not in (*MODEL_FREE, "bc")
    return {
        "--seeds must be one or more different integers": len(set(config.seeds)) == len(config.seeds) > 0,
        "--trackers must be different names": len(set(config.trackers)) == len(config.trackers),
        "--envs must divide --updates-per-call times --steps-per-update": steps_per_call(config) % config.envs == 0,
        "--model.simnorm-dim must divide --model.latent-dim": model.latent_dim % model.simnorm_dim == 0,
        "--model.num-critics must be at least 2": model.num_critics >= 2,
        "--model.dropout must be below 1": model.dropout < 1,
        "--cdred.num-targets must be at least 2": coupled.num_targets >= 2,
        "--cdred.zeta-schedule ratio needs --cdred.zeta above 0": coupled.zeta_schedule != "ratio" or coupled.zeta > 0,
        "--cdred.input-gradient needs a world model and --cdred.input state-action or transition": (
            not coupled.input_gradient or (config.algo not in MODEL_FREE and coupled.input != "state")
        ),
        "--pretrain.encoder-loss consistency needs pretraining (--pretrain.updates) of a world model": (
            pretrain.encoder_loss == "bc" or (pretrains and config.algo not in (*MODEL_FREE, "bc", "tdmpc2"))
        ),
        "--pretrain.self-imitation-coef needs --pretrain.updates": pretrains or not pretrain.self_imitation_coef,
        "--pretrain.propose-actions needs --pretrain.updates": pretrains or not pretrain.propose_actions,
        f"--pretrain.propose-actions {needs_planner}": plans or not pretrain.propose_actions,
        f"--collect-with policy {needs_planner}": plans or config.collect_with == "planner",
        "--replay-images host needs camera images: --obs pixels or --obs both": (
            config.replay_images == "device" or config.obs != "state" or has_images(config.task)
        ),
        "--mppi.num-pi-trajs must be below --mppi.num-samples": mppi.num_pi_trajs < mppi.num_samples,
        "--mppi.num-elites must be at most --mppi.num-samples": mppi.num_elites <= mppi.num_samples,
        "--mppi.min-std must be at most --mppi.max-std": mppi.min_std <= mppi.max_std,
        "--mppi.explore-min-std must be at most --mppi.max-std": mppi.explore_min_std <= mppi.max_std,
    }


def parse_settings(tree: Any, name: SettingName) -> RunConfig:
    """Build a `RunConfig` from mappings, lists and numbers, absent keys at their defaults, and check types and ranges.

    Args:
        tree: settings as nested mappings.
        name: formats a path of keys for a message, e.g. as an option.

    Raises:
        UserError: for an unknown key, or a value of a wrong type or out of range.
    """
    refuse_unknown(RunConfig, tree, name)
    return parse(RunConfig, _with_short_forms(tree), name)


def _with_short_forms(tree: dict[str, Any]) -> dict[str, Any]:
    """Return settings in which a number of demonstrations is a string, and one seed or import a list."""
    forms = {"demos": str, "seeds": lambda seed: [seed]}
    lists = {key: form(tree[key]) for key, form in forms.items() if _is_integer(tree.get(key))}
    if isinstance(tree.get("imports"), (str, os.PathLike)):
        lists["imports"] = [tree["imports"]]
    return tree | lists


def _is_integer(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def steps_per_call(config: RunConfig) -> int:
    """Compute the environment steps per seed before each `learn` call."""
    return config.updates_per_call * config.steps_per_update


def total_steps(config: RunConfig) -> int:
    """Compute the run's environment steps per seed: `config.steps` rounded up to whole `learn` calls."""
    return -(-config.steps // steps_per_call(config)) * steps_per_call(config)


def total_updates(config: RunConfig) -> int:
    """Compute the run's updates per seed."""
    return total_steps(config) // config.steps_per_update
