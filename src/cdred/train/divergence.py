"""Recovery from divergence: a seed that diverges restarts from its last good state with a new key.

The last good state is the last checkpoint, or the state before the first update, so a resumed run restarts from the
same state as an uninterrupted one. Seeds are independent rows, so the other seeds are unaffected. The restarted seed
repeats its updates at once, so the update count and all schedules stay the same for every seed.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from cdred.data.replay_buffer import ReplayBuffer
from cdred.errors import DivergenceError
from cdred.loggers.metrics import Logger
from cdred.train.compiled import CompiledFns
from cdred.train.finite import HINT, NON_FINITE_ACTION, Divergence, FiniteCheck
from cdred.train.keys import RunKeys
from cdred.train.state import TrainState
from cdred.types import LogFn

Metrics = dict[str, Float[Array, " S"]]
# Divergences of one seed since the last good state at which the run ends.
MAX_DIVERGENCES = 3
# Endings of the names of the metrics that the message about a divergence quotes.
QUOTED = ("loss", "grad_norm", "q_scale", "abs_max")


class DivergenceRecovery:
    """Restarts of diverged seeds from a copy of the last good learner.

    Args:
        fns: compiled functions of the run.
        seeds: seeds of the run.
        keys: keys of the run, changed for a seed at each restart.
        expert, validation: buffers of demonstrations, as in `CompiledFns.learn`.
        logger: receives the metrics of every restart.
        log: receives a message about every restart.
    """

    def __init__(
        self,
        fns: CompiledFns,
        seeds: tuple[int, ...],
        keys: RunKeys,
        expert: ReplayBuffer | None,
        validation: ReplayBuffer | None,
        logger: Logger,
        log: LogFn,
    ):
        self._fns, self._seeds, self._keys = fns, seeds, keys
        self._expert, self._validation, self._logger, self._log = expert, validation, logger, log

    def set_good_state(self, state: TrainState) -> None:
        """Set the state from which seeds restart: the one just saved, or the one before the first update."""
        self._good_learner = jax.tree.map(jnp.copy, state.learner)
        self._good_updates = int(np.max(jax.device_get(state.learner.updates)))
        self._good_steps, self._good_restarts = int(state.steps), state.divergence_restarts

    def recover(
        self, state: TrainState, metrics: Metrics, check: FiniteCheck, updates: int
    ) -> tuple[TrainState, Metrics]:
        """Restart the seeds that diverged in the `learn` call that led to `updates` updates.

        Returns:
            The state after `updates` updates and the metrics of the call, both finite for all seeds.

        Raises:
            DivergenceError: a seed diverged MAX_DIVERGENCES times since the last good state.
        """
        for row in np.flatnonzero(~jax.device_get(check.finite)):
            call = self._fns.updates_per_call
            divergence = _describe(check, row, updates - call, call)
            state, retry_metrics = self._retry(state, row, divergence, updates)
            metrics = self._fns.select_seeds(self._seed_mask(row), retry_metrics, metrics)
        return state, metrics

    def restart_seeds(self, state: TrainState, mask: Bool[np.ndarray, " S"]) -> TrainState:
        """Restart the seeds of `mask`, which have non-finite actions; raises as `recover`."""
        for row in np.flatnonzero(mask):
            updates = int(np.max(jax.device_get(state.learner.updates)))
            state = self._retry(state, row, NON_FINITE_ACTION, updates)[0]
        return state

    def _retry(
        self, state: TrainState, row: int, divergence: Divergence | None, updates: int
    ) -> tuple[TrainState, Metrics | None]:
        """Restart one seed until it reaches `updates` updates."""
        learner, metrics = state.learner, None
        while divergence is not None:
            state = self._record(state, row, divergence)
            learner, metrics, divergence = self._relearn(state, row, updates)
        return state.replace(learner=self._fns.select_seeds(self._seed_mask(row), learner, state.learner)), metrics

    def _relearn(self, state: TrainState, row: int, updates: int) -> tuple[PyTree, Metrics | None, Divergence | None]:
        """Repeat the updates since the good state for all seeds, until `updates` or the divergence of that of `row`."""
        learner, metrics = jax.tree.map(jnp.copy, self._good_learner), None
        for count in range(self._good_updates, updates, self._fns.updates_per_call):
            learner, metrics, check = self._fns.learn(
                learner, state.replay, self._expert, self._keys.learn, np.int32(count), self._validation
            )
            if not jax.device_get(check.finite)[row]:
                return learner, metrics, _describe(check, row, count, self._fns.updates_per_call)
        return learner, metrics, None

    def _record(self, state: TrainState, row: int, divergence: Divergence) -> TrainState:
        """Count and log a restart, and change the keys of the seed."""
        restarts = state.divergence_restarts + self._seed_mask(row)
        number = int((restarts - self._good_restarts)[row])
        where = f"seed {self._seeds[row]}, step {state.steps:,}"
        values = {name: _per_seed(row, value, len(self._seeds)) for name, value in divergence.metrics.items()}
        self._logger.log(int(state.steps), {"divergence_restarts": restarts.tolist()} | values, "restart")
        if number == MAX_DIVERGENCES:
            raise DivergenceError(
                f"{where}: diverged {MAX_DIVERGENCES} times since step {self._good_steps:,}, the last good state.\n"
                f"{divergence.text}\n{HINT}"
            )
        limit = f"divergence {number}; the run ends at {MAX_DIVERGENCES}"
        self._log(f"{where}: {divergence.text}; restarting from step {self._good_steps:,} with a new key ({limit})")
        self._keys.set_restarts(restarts)
        return state.replace(divergence_restarts=restarts)

    def _seed_mask(self, row: int) -> Bool[np.ndarray, " S"]:
        return np.arange(len(self._seeds)) == row


def _describe(check: FiniteCheck, row: int, updates: int, call: int) -> Divergence:
    """Describe the divergence of one seed in a `learn` call that made updates `updates` + 1 to `updates` + `call`."""
    fields = (check.finite_updates, check.last_finite_metrics, check.parameter_abs_max)
    finite_updates, metrics, abs_max = jax.tree.map(lambda x: x[row].item(), jax.device_get(fields))
    first = min(finite_updates.values())
    names = ", ".join(name for name, count in finite_updates.items() if count == first)
    what = f"first non-finite: {names}, in update {updates + first + 1:,}"
    if first == call:
        what = f"all metrics are finite, but not the learner after update {updates + call:,}"
    when = "the update before" if first else "in that update"
    quoted = ", ".join(f"{name} {value:.3g}" for name, value in metrics.items() if name.endswith(QUOTED))
    return Divergence(f"{what}; {when}: {quoted}; largest parameter after the call {abs_max:.3g}", metrics)


def _per_seed(row: int, value: float, num_seeds: int) -> list[float | None]:
    """Make a list per seed with `value` in `row` and None elsewhere."""
    return [value if i == row else None for i in range(num_seeds)]
