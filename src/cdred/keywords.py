"""Keywords of `cdred.train`: each setting of `RunConfig`, in the forms that Python callers use."""

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, Literal, TypedDict

from cdred.algos.cdred import CDREDConfig
from cdred.algos.gail import GAILConfig
from cdred.algos.iq_learn import IQLearnConfig
from cdred.algos.optim import OptimConfig
from cdred.algos.pretrain import PretrainConfig
from cdred.algos.red import REDConfig
from cdred.algos.sac_agent import SACConfig
from cdred.config import AlgoName, PlannerName, PrecisionConfig, PresetName
from cdred.loggers.trackers import Tracker
from cdred.models.world_model import ModelConfig
from cdred.planning.mppi import MPPIConfig
from cdred.task_name import ObsKind
from cdred.types import TrackerName, Trajectory, VectorizationMode

Group = Mapping[str, Any]
"""Some settings of a group: the others keep the preset's values."""


class TrainKeywords(TypedDict, total=False):
    """Settings that override those of the preset; `RunConfig` describes each."""

    task: str
    imports: str | PathLike[str] | Sequence[str | PathLike[str]]
    obs: ObsKind
    image_size: int
    algo: AlgoName
    demos: int | str | PathLike[str] | Sequence[Trajectory]
    init_from: str | PathLike[str]
    num_validation_demos: int
    allow_variable_horizon: bool
    steps: int
    seeds: int | Sequence[int]
    preset: PresetName
    out: str | PathLike[str]
    envs: int
    vectorization: VectorizationMode
    env_step_timeout: float
    random_episodes: int
    updates_per_call: int
    steps_per_update: int
    buffer_size: int
    replay_images: Literal["device", "host"]
    planner: PlannerName
    collect_with: Literal["planner", "policy"]
    eval_every: int
    eval_episodes: int
    final_eval_episodes: int
    log_every: int
    checkpoint_every: int
    video: bool
    trackers: TrackerName | Tracker | Sequence[TrackerName | Tracker]
    model: ModelConfig | Group
    precision: PrecisionConfig | Group
    cdred: CDREDConfig | Group
    iq: IQLearnConfig | Group
    gail: GAILConfig | Group
    red: REDConfig | Group
    sac: SACConfig | Group
    mppi: MPPIConfig | Group
    optim: OptimConfig | Group
    pretrain: PretrainConfig | Group
