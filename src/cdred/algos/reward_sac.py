"""GAIL (as DAC, arXiv 1809.02925), RED and CDRED's reward on raw observations, each with soft actor-critic."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float, Key

from cdred.algos.method import Lived, Objective
from cdred.algos.sac_agent import SACAgent, SACState
from cdred.algos.td import Scores, regress


class RewardSAC(SACAgent):
    """Critics learn from what a reward model says of x = (observation, action).

    Attributes:
        score: what the reward model learns from x `[N, 1, in]`, the expert's half first, and says of it.
    """

    score: Callable[[Any, Float[Array, "N 1 in"], Key[Array, ""]], Scores] = eqx.field(static=True)

    def objective(self, state: SACState, lived: Lived, key: Key[Array, ""]) -> Objective:
        score_key, value_key, dropout_key = jax.random.split(key, 3)
        return regress(
            state.model,
            state.target_critics,
            lived,
            self.score(state.reward, lived.inputs, score_key),
            discount=self.discount,
            rho=1.0,
            beta=self.temperature,
            value_key=value_key,
            dropout_key=dropout_key,
        )
