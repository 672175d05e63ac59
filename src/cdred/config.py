"""Every setting there is, as frozen dataclasses; their docstrings are the command line's help."""

import math
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any, Literal

import tyro

from cdred.errors import UserError
from cdred.types import Precision, VectorizationMode

AlgoName = Literal["cdred", "iqmpc", "gail", "red", "iqlearn-sac", "gail-sac", "red-sac", "cdred-sac", "bc", "tdmpc2"]
ON_OBSERVATIONS: tuple[AlgoName, ...] = ("iqlearn-sac", "gail-sac", "red-sac", "cdred-sac")
PresetName = Literal["cpu", "paper", "debug"]
PlannerName = Literal["mppi", "policy"]
# Counters on the device have 32 bits.
LARGEST = 2**31 - 1
MAY_BE_ZERO = ("num_validation_demos", "seeds", "warmup_updates", "imitation_updates")


@dataclass(frozen=True)
class ModelConfig:
    """The latent world model."""

    latent_dim: int = 128
    """Width of the latent z."""
    simnorm_dim: int = 8
    """Components per SimNorm group; divides latent_dim."""
    encoder_hidden_dims: tuple[int, ...] = (128,)
    """Hidden layers of the observation encoder."""
    hidden_dims: tuple[int, ...] = (128, 128)
    """Hidden layers of dynamics, critics and policy prior."""
    num_critics: int = 5
    """Critics in the ensemble."""
    num_bins: int = 101
    """Bins of a critic's two-hot value distribution over symlog values in [-10, 10]."""
    normalize_obs: bool = True
    """Bring observations to one scale, that of the demonstrations and the random episodes (docs/defaults.md)."""
    dropout: float = 0.0
    """Dropout on the critics' first layer while learning."""


@dataclass(frozen=True)
class RewardConfig:
    """The coupled random-network-distillation reward; its networks' sizes and its warm-up are GAIL's and RED's too."""

    zeta: float = 0.8
    """Weight of the expert's bonus against the agent's own (1: uncoupled)."""
    alpha: float = 0.9
    """Weight of the squared distance against the count correction within a bonus."""
    sigma: float = 1.0
    """Scale of the reward."""
    coupling: Literal["identity", "exp"] = "identity"
    """g of the paper."""
    num_targets: int = 5
    """Random target networks, K."""
    embedding_dim: int = 64
    """Width of their output."""
    target_hidden_dims: tuple[int, ...] = (128, 128)
    """Hidden layers of the targets."""
    predictor_hidden_dims: tuple[int, ...] = (128, 128)
    """Hidden layers of the two predictors."""
    distance_reduction: Literal["sum", "mean"] = "sum"
    """How |f - mu|^2 is reduced over the embedding."""
    count_reduction: Literal["sum", "mean"] = "mean"
    """How the count estimate y is reduced over the embedding."""
    variance_eps: float = 1e-3
    """Added to the targets' variance before it divides."""
    ema_rate: float = 0.01
    """Step of the predictors' moving averages, which the reward is read from (1: from the predictors themselves)."""
    warmup_updates: int = 500
    """Updates that fit the predictors and the dynamics before critics and prior see any reward (trap 3)."""


@dataclass(frozen=True)
class PrecisionConfig:
    """How exactly the factors of matrix products are taken; sums, losses and optimisers are float32 always."""

    model: Precision = "float32"
    """Of encoder, dynamics, critics, policy and termination head."""
    reward: Precision = "float32"
    """Of the reward model's networks; their squared differences are float32 always."""


@dataclass(frozen=True)
class IQLearnConfig:
    """IQ-MPC and IQ-Learn, whose reward is in their critics."""

    alpha: float = 0.5
    """Of the chi^2 divergence: the Bellman residuals' squares weigh 1 / (4 alpha)."""
    gradient_penalty: float = 0.0
    """Weight of the critics' gradient penalty (results/peers)."""


@dataclass(frozen=True)
class GAILConfig:
    """GAIL's discriminator; it has the hidden layers of CDRED's predictors."""

    gradient_penalty: float = 0.1
    """Weight of its gradient penalty (results/peers)."""


@dataclass(frozen=True)
class REDConfig:
    """RED's reward; its target and predictor are of the size of CDRED's."""

    sigma: float = 1.0
    """How fast the reward falls with the squared distance from the target."""


@dataclass(frozen=True)
class SACConfig:
    """Soft actor-critic, for the methods on raw observations; its networks have the hidden layers of the prior."""

    temperature: float = 0.01
    """Weight of the policy's entropy."""


@dataclass(frozen=True)
class MPPIConfig:
    """MPPI."""

    horizon: int = 3
    """Steps looked ahead; also the length of a training segment, H."""
    num_samples: int = 128
    """Action sequences per iteration."""
    num_pi_trajs: int = 16
    """How many of them come from the policy prior."""
    num_elites: int = 32
    """Best sequences that shape the next iteration."""
    iterations: int = 4
    """Refinements per step."""
    temperature: float = 0.5
    """Inverse temperature of the elites' weights."""
    min_std: float = 0.05
    """Smallest standard deviation of the sampling distribution, where the agent does not explore."""
    max_std: float = 2.0
    """Largest, and the first iteration's."""
    explore_min_std: float = 0.2
    """Smallest where it does, and so of the exploring noise (paper: 0.05)."""
    policy_penalty_coef: float = 0.1
    """What a plan pays for its squared distance from the prior's own, in units of the Q-scale; tdmpc2 pays nothing
    (paper: 0)."""


@dataclass(frozen=True)
class OptimConfig:
    """Losses and optimiser."""

    batch_size: int = 64
    """Segments per update from each of the two stores."""
    learning_rate: float = 3e-4
    """Adam's step size."""
    lr_decay_fraction: float = 0.2
    """Last part of the run, as a fraction, over which the step size falls linearly to zero (0: it never does)."""
    encoder_lr_scale: float = 1 / 3
    """The encoder's step size relative to it."""
    grad_clip_norm: float = 20.0
    """Largest gradient norm, of the model's loss and of the prior's."""
    consistency_coef: float = 20.0
    """c_d: weight of the latent dynamics' loss."""
    value_coef: float = 0.1
    """c_q: weight of the critics' loss."""
    reward_coef: float = 0.1
    """c_r: weight of the predictors' loss."""
    termination_coef: float = 1.0
    """Weight of the termination head's loss, where the world can end."""
    policy_adam_eps: float = 1e-5
    """Adam's eps for the policy prior."""
    entropy_coef: float = 1e-4
    """beta: weight of the prior's entropy."""
    bc_coef: float = 10.0
    """Weight of the prior's squared distance from the expert's actions."""
    imitation_updates: int = 0
    """Updates after which that weight falls to zero: a warm start by cloning (0: it never does)."""
    bc_encoder_coef: float = 0.0
    """Weight of the same distance in the model's loss, so that the latent keeps what tells the expert's actions (0: the
    latent is shaped by dynamics and critics alone)."""
    discount_min: float = 0.95
    """Lower bound of gamma, which is 1 - 5 / T for episodes of T steps."""
    rho: float = 0.5
    """lambda: weight of a loss one transition further into a segment."""
    tau: float = 0.05
    """Step of the target critics, and of the Q-scale, towards the present."""


@dataclass(frozen=True)
class RunConfig:
    """One training run: what to learn, from what, for how long, with which settings."""

    task: Annotated[str, tyro.conf.Positional] = "metaworld/drawer-close"
    """What to learn: metaworld/<task>, dmc/<domain>-<task>, maniskill/<task>, mjx/<Task>, gym/<id>."""
    algo: AlgoName = "cdred"
    """The method: cdred; its peers iqmpc, gail and red on the same world model; the same rewards without one, by soft
    actor-critic on raw observations (-sac); bc, which makes as many updates as others make steps, and none of
    those; or tdmpc2, which learns from the environment's own reward."""
    demos: str = "10"
    """A number of scripted demonstrations to collect (and cache), or the path of a demonstration file."""
    num_validation_demos: int = 0
    """Last demonstrations that are not learned from, to see whether the rest is overfitted (docs/health.md). bc keeps a
    tenth for itself whatever this says."""
    allow_variable_horizon: bool = False
    """Accept demonstrations that were truncated at different lengths."""
    steps: int = 5000
    """Steps of the agent, per seed, over all its environments; rounded up to whole learn calls."""
    seeds: tuple[int, ...] = (0,)
    """Seeds, learned in lockstep as one compiled program."""
    preset: PresetName = "cpu"
    """Settings to start from; any other option overrides it."""
    out: str = ""
    """Run folder; runs/<task>-<algo>-<preset> if empty."""
    envs: int = 1
    """Environments per seed."""
    vectorization: VectorizationMode = "sync"
    """Who steps them: the calling thread, a pool of threads, or processes; the results are the same bits. With sync,
    simulators in JAX (mjx) are stepped on the device, in one program with the agent that acts and learns."""
    env_step_timeout: float = 60.0
    """Seconds that a step may take in a process of its own (--vectorization process, maniskill) before the process is
    ended and made anew; resets have ten times as long. With sync and thread a simulator that hangs stops the run."""
    random_episodes: int = 5
    """Random episodes before learning begins."""
    updates_per_call: int = 20
    """Updates in one compiled call, after as many steps as they need."""
    steps_per_update: int = 1
    """Steps for each update. More make a run faster and learn less from each step: meant for many --envs."""
    overlap: bool = False
    """Make each step's updates while its simulators step, instead of all after --updates-per-call of them: for
    simulators that are slow beside the device (docs/speed.md). What is learned from is then up to so many steps
    old."""
    buffer_size: int = 1_000_000
    """Most transitions kept per environment; no more is allocated than the run can fill."""
    planner: PlannerName = "mppi"
    """How the agent acts: planning, or the policy prior alone."""
    eval_every: int = 2500
    """Steps between evaluations."""
    eval_episodes: int = 5
    """Fresh episodes per evaluation on the way."""
    final_eval_episodes: int = 20
    """Fresh episodes of the last evaluation."""
    log_every: int = 100
    """Steps between log lines."""
    checkpoint_every: int = 1000
    """Steps between checkpoints."""
    video: bool = True
    """Film expert and agent side by side at the end, where the task can be rendered."""
    model: ModelConfig = field(default_factory=ModelConfig)
    precision: PrecisionConfig = field(default_factory=PrecisionConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    iqmpc: IQLearnConfig = field(default_factory=IQLearnConfig)
    gail: GAILConfig = field(default_factory=GAILConfig)
    red: REDConfig = field(default_factory=REDConfig)
    sac: SACConfig = field(default_factory=SACConfig)
    mppi: MPPIConfig = field(default_factory=MPPIConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)


def preset(name: PresetName) -> RunConfig:
    """The named starting point: `cpu` (two cores), `paper` (docs/method.md section 1), `debug` (seconds)."""
    base = RunConfig(preset=name)
    if name == "paper":
        return replace(
            base,
            steps=500_000,
            eval_every=20_000,
            checkpoint_every=20_000,
            log_every=1000,
            model=ModelConfig(512, 8, (256,), (512, 512), normalize_obs=False, dropout=0.01),
            reward=RewardConfig(target_hidden_dims=(512, 512), predictor_hidden_dims=(1024, 1024, 1024), ema_rate=1.0),
            mppi=MPPIConfig(
                num_samples=512,
                num_pi_trajs=24,
                num_elites=64,
                iterations=6,
                explore_min_std=0.05,
                policy_penalty_coef=0.0,
            ),
            optim=OptimConfig(batch_size=256, encoder_lr_scale=0.3, bc_coef=0.0, tau=0.01, lr_decay_fraction=0.0),
        )
    if name == "debug":
        return replace(
            base,
            steps=200,
            random_episodes=1,
            eval_every=100,
            eval_episodes=1,
            final_eval_episodes=2,
            checkpoint_every=100,
            log_every=20,
            model=ModelConfig(16, 8, (16,), (16, 16), 3, 21),
            reward=RewardConfig(
                num_targets=3,
                embedding_dim=8,
                target_hidden_dims=(16, 16),
                predictor_hidden_dims=(16, 16),
                warmup_updates=20,
            ),
            mppi=MPPIConfig(num_samples=16, num_pi_trajs=4, num_elites=4, iterations=2),
            optim=OptimConfig(batch_size=8),
        )
    return base


def check(config: RunConfig) -> None:
    """Refuse settings that cannot work together.

    Raises:
        UserError: the first one that does not, by its option's name.
    """
    mppi, model = config.mppi, config.model
    demands = {
        "--seeds must be one or more different integers >= 0": config.seeds
        and min(config.seeds) >= 0
        and len(set(config.seeds)) == len(config.seeds),
        "--updates-per-call must be at least 1": config.updates_per_call > 0,
        "--steps-per-update must be at least 1": config.steps_per_update > 0,
        "--envs must divide --updates-per-call times --steps-per-update": config.envs > 0
        and steps_per_call(config) % config.envs == 0,
        "--overlap needs --envs to be a multiple of --steps-per-update": not config.overlap
        or config.envs % config.steps_per_update == 0,
        "--steps must be at least 1": config.steps > 0,
        "--env-step-timeout must be above 0": config.env_step_timeout > 0,
        "--random-episodes must be at least 1": config.random_episodes > 0,
        "--optim.batch-size must be at least 1": config.optim.batch_size > 0,
        "--model.simnorm-dim must divide --model.latent-dim": model.simnorm_dim > 0
        and model.latent_dim % model.simnorm_dim == 0,
        "--model.num-critics must be at least 2": model.num_critics >= 2,
        "--optim.lr_decay_fraction must be from 0 to 1": 0 <= config.optim.lr_decay_fraction <= 1,
        "--optim.bc-coef must be at least 0": config.optim.bc_coef >= 0,
        "--optim.imitation-updates must be at least 0": config.optim.imitation_updates >= 0,
        "--optim.tau must be above 0 and at most 1": 0 < config.optim.tau <= 1,
        "--iqmpc.alpha must be above 0": config.iqmpc.alpha > 0,
        "--iqmpc.gradient-penalty must be at least 0": config.iqmpc.gradient_penalty >= 0,
        "--gail.gradient-penalty must be at least 0": config.gail.gradient_penalty >= 0,
        "--red.sigma must be above 0": config.red.sigma > 0,
        "--sac.temperature must be at least 0": config.sac.temperature >= 0,
        "--reward.num-targets must be at least 2": config.reward.num_targets >= 2,
        "--reward.ema-rate must be above 0 and at most 1": 0 < config.reward.ema_rate <= 1,
        "--mppi.horizon must be at least 1": mppi.horizon > 0,
        "--mppi.num-pi-trajs must be from 1 to below --mppi.num-samples": 0 < mppi.num_pi_trajs < mppi.num_samples,
        "--mppi.num-elites must be from 1 to --mppi.num-samples": 0 < mppi.num_elites <= mppi.num_samples,
        "--mppi.min-std must be above 0 and at most --mppi.max-std": 0 < mppi.min_std <= mppi.max_std,
        "--mppi.explore-min-std must be above 0 and at most --mppi.max-std": 0 < mppi.explore_min_std <= mppi.max_std,
    }
    for demand, met in (demands | _range_demands(asdict(config), "--")).items():
        if not met:
            raise UserError(f"{demand}.")


def _range_demands(tree: dict[str, Any], prefix: str) -> dict[str, bool]:
    """What every number has to be, whatever it is for; by option."""
    demands = {}
    for key, value in tree.items():
        option, least = prefix + key.replace("_", "-"), 0 if key in MAY_BE_ZERO else 1
        if isinstance(value, dict):
            demands |= _range_demands(value, f"{option}.")
        elif isinstance(value, float):
            demands[f"{option} must be a finite number >= 0"] = 0 <= value < math.inf
        elif isinstance(value, (int, tuple)) and not isinstance(value, bool):
            numbers = value if isinstance(value, tuple) else (value,)
            demands[f"{option} must be from {least} to {LARGEST}"] = all(least <= one <= LARGEST for one in numbers)
    return demands


def discount(episode_length: int, least: float) -> float:
    """gamma = clip((T/5 - 1)/(T/5), least, 0.995) for episodes of T steps (arXiv 2310.16828: least = 0.95)."""
    fifth = episode_length / 5
    return min(max((fifth - 1) / fifth, least), 0.995)


def steps_per_call(config: RunConfig) -> int:
    """Steps per seed, over all its environments, before each `learn` call."""
    return config.updates_per_call * config.steps_per_update


def total_steps(config: RunConfig) -> int:
    """The run's steps per seed: those asked for, rounded up to whole `learn` calls."""
    return -(-config.steps // steps_per_call(config)) * steps_per_call(config)


def total_updates(config: RunConfig) -> int:
    """The run's updates per seed."""
    return total_steps(config) // config.steps_per_update
