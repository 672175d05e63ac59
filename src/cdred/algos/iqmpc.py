"""IQ-MPC (arXiv 2410.14081): inverse soft-Q learning on the world model; the reward is decoded from the critics."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from cdred.algos.iq_learn import inverse_q
from cdred.algos.method import Lived, Objective
from cdred.algos.world_model_agent import LearnerState, WorldModelAgent, mean_value
from cdred.nn.layers import Fixed


class IQMPC(WorldModelAgent):
    """Critics whose Bellman residual is high on the expert's data, and small elsewhere; there is no reward model.

    Attributes:
        alpha, gradient_penalty: see `inverse_q`.
    """

    uses_demos: ClassVar[bool] = True

    alpha: float = eqx.field(static=True)
    gradient_penalty: float = eqx.field(static=True)

    def objective(self, state: LearnerState, lived: Lived, key: Key[Array, ""]) -> Objective:
        return inverse_q(
            state.model,
            state.target_critics,
            lived,
            alpha=self.alpha,
            gradient_penalty=self.gradient_penalty,
            discount=self.discount,
            rho=self.rho,
            beta=self.entropy_coef,
            key=key,
        )

    def imagined_reward(
        self,
        state: LearnerState,
        z: Float[Array, " Z"] | Fixed,
        action: Float[Array, " A"],
        following: Float[Array, " Z"],
    ) -> Float[Array, ""]:
        """r = Q(z, a) - gamma V(z'), the mean over critics, the prior at its mode."""
        model = state.model
        return jnp.mean(model.values(model.critics, z, action)) - self.discount * mean_value(model, following)
