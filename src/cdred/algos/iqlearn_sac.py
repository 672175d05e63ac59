"""IQ-Learn (arXiv 2106.12142) with soft actor-critic on raw observations ("IQL+SAC")."""

import equinox as eqx
from jaxtyping import Array, Key

from cdred.algos.iq_learn import inverse_q
from cdred.algos.method import Lived, Objective
from cdred.algos.sac_agent import SACAgent, SACState


class IQLearnSAC(SACAgent):
    """IQ-MPC's objective without a world model, and without a plan.

    Attributes:
        alpha, gradient_penalty: see `inverse_q`.
    """

    alpha: float = eqx.field(static=True)
    gradient_penalty: float = eqx.field(static=True)

    def objective(self, state: SACState, lived: Lived, key: Key[Array, ""]) -> Objective:
        return inverse_q(
            state.model,
            state.target_critics,
            lived,
            alpha=self.alpha,
            gradient_penalty=self.gradient_penalty,
            discount=self.discount,
            rho=1.0,
            beta=self.temperature,
            key=key,
        )
