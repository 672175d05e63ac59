"""Learning that leaves the numbers: the seed goes back to its last good state, and learns on with a fresh key.

Good is what was last saved, or what learning began with, so a resumed run goes back to the same state as an unbroken
one. Seeds are independent rows: those beside it never notice. The updates that a seed loses are made good at once, as
those of the random episodes are, so that the count of updates and all schedules stay the same for every seed.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int64, Key, PyTree

from cdred.data.replay_buffer import ReplayBuffer
from cdred.errors import DivergenceError
from cdred.loggers.metrics import Logger
from cdred.train.compiled import ACT, LEARN, CompiledFns, FiniteCheck, seed_keys
from cdred.train.state import TrainState
from cdred.types import LogFn

Metrics = dict[str, Float[Array, " S"]]
# Rollbacks of one seed, without a checkpoint in between, after which nothing is to be hoped for.
LIMIT = 3
# Counted down from here, a seed's divergence_restarts are never the counter of a step or an update.
LAST_WORD = 2**32
# Of all metrics, what a diagnosis quotes.
QUOTED = ("loss", "grad_norm", "q_scale", "absmax")
MEND = "What was saved before is finite. Try a smaller --optim.learning-rate or --optim.grad-clip-norm; see docs/health.md."


class Divergence(NamedTuple):
    """What was not finite, in words, and what the learning looked like just before."""

    text: str
    statistics: dict[str, float]


OVERFLOW = Divergence("planning found no finite action, though what was learned is finite", {})


class DivergenceRecovery:
    """Takes diverged seeds back, and holds what that needs: a copy of the last good learner, and the keys.

    Args:
        programs: of the run.
        seeds: one a row.
        expert, validation: the stores that `learn` is given.
        tracker: is told of every rollback.
        say: is told it in words.
    """

    def __init__(
        self,
        programs: CompiledFns,
        seeds: tuple[int, ...],
        expert: ReplayBuffer | None,
        validation: ReplayBuffer | None,
        tracker: Logger,
        say: LogFn,
    ):
        self._programs, self._seeds, self._stores = programs, seeds, (expert, validation)
        self._tracker, self._say = tracker, say

    def keep(self, state: TrainState) -> None:
        """`state` is good: it has been saved, or it is what learning begins with."""
        self._good = jax.tree.map(jnp.copy, state.learner)
        self._updates = int(np.max(jax.device_get(state.learner.updates)))
        self._decisions, self._rollbacks = int(state.steps), state.divergence_restarts
        self._draw_keys(state.divergence_restarts)

    def _draw_keys(self, divergence_restarts: Int64[np.ndarray, " S"]) -> None:
        keys = (seed_keys(self._seeds, purpose) for purpose in (ACT, LEARN))
        self.act_keys, self.learn_keys = (fresh_keys(key, divergence_restarts) for key in keys)

    def decide(
        self, state: TrainState, obs: Float32[np.ndarray, "S E ..."]
    ) -> tuple[TrainState, Float32[np.ndarray, "S E A"]]:
        """Exploring actions of all environments; a seed whose plan overflows is taken back, and plans again."""
        action, plan = self._act(state, state.plan, obs, state.fresh)
        chosen = np.asarray(action)
        while (broken := ~finite_rows(chosen)).any():
            for row in np.flatnonzero(broken):
                state = self._again(state, row, OVERFLOW, int(np.max(jax.device_get(state.learner.updates))))[0]
            blank = self._programs.init_plan(*state.fresh.shape)
            action, planned = self._act(state, blank, obs, np.ones_like(state.fresh))
            plan = self._programs.choose(broken, planned, plan)
            chosen = np.where(broken[:, None, None], action, chosen)
        return state.replace(plan=plan), chosen

    def _act(self, state: TrainState, plan: PyTree, obs: np.ndarray, fresh: Any) -> tuple[Array, PyTree]:
        return self._programs.act(state.learner, plan, obs, fresh, self.act_keys, np.int32(state.steps), True)

    def checked(
        self, state: TrainState, metrics: Metrics, verdict: FiniteCheck, updates: int
    ) -> tuple[TrainState, Metrics]:
        """The state after a `learn` call that led to `updates` updates, and its metrics, of seeds that are all finite.

        Raises:
            Diverged: a seed has left the numbers for the last time.
        """
        for row in np.flatnonzero(~jax.device_get(verdict.finite)):
            call = self._programs.updates
            fault = _fault(verdict, row, updates - call, call)
            state, again = self._again(state, row, fault, updates)
            metrics = self._programs.choose(self._only(row), again, metrics)
        return state, metrics

    def _again(
        self, state: TrainState, row: int, fault: Divergence | None, updates: int
    ) -> tuple[TrainState, Metrics | None]:
        """The seed of `row` taken back and led to `updates` updates once more, as often as it takes."""
        learner, metrics = state.learner, None
        while fault is not None:
            state = self._counted(state, row, fault)
            learner, metrics, fault = self._redo(state, row, updates)
        return state.replace(learner=self._programs.choose(self._only(row), learner, state.learner)), metrics

    def _redo(self, state: TrainState, row: int, updates: int) -> tuple[PyTree, Metrics | None, Divergence | None]:
        """All seeds from the good state to `updates` updates, for the sake of that of `row`, and where it failed."""
        learner, metrics = jax.tree.map(jnp.copy, self._good), None
        expert, validation = self._stores
        for done in range(self._updates, updates, self._programs.updates):
            learner, metrics, verdict = self._programs.learn(
                learner, state.replay, expert, self.learn_keys, np.int32(done), validation
            )
            if not jax.device_get(verdict.finite)[row]:
                return learner, metrics, _fault(verdict, row, done, self._programs.updates)
        return learner, metrics, None

    def _counted(self, state: TrainState, row: int, fault: "Divergence") -> TrainState:
        """One rollback more, told, and the key that comes with it."""
        divergence_restarts = state.divergence_restarts + self._only(row)
        number, where = (
            int((divergence_restarts - self._rollbacks)[row]),
            f"seed {self._seeds[row]}, step {state.steps:,}",
        )
        values = {name: _of(row, value, len(self._seeds)) for name, value in fault.statistics.items()}
        self._tracker.log(int(state.steps), {"divergence_restarts": divergence_restarts.tolist()} | values, "restart")
        if number == LIMIT:
            raise DivergenceError(
                f"{where}: diverged {LIMIT} times since step {self._decisions:,}, the last good state.\n"
                f"{fault.text}\n{MEND}"
            )
        back = f"back to step {self._decisions:,}, with a fresh key (rollback {number}; the run ends at {LIMIT})"
        self._say(f"{where}: {fault.text}; {back}")
        self._draw_keys(divergence_restarts)
        return state.replace(divergence_restarts=divergence_restarts)

    def _only(self, row: int) -> Bool[np.ndarray, " S"]:
        return np.arange(len(self._seeds)) == row


def finite_rows(action: Float32[np.ndarray, "S E A"]) -> Bool[np.ndarray, " S"]:
    """Seeds all of whose actions are finite."""
    return np.asarray(np.isfinite(action).all(axis=(1, 2)))


def require_plans(finite: Bool[np.ndarray, " S"], seeds: tuple[int, ...], where: str) -> None:
    """Raises Diverged for a seed whose actions are not all finite."""
    for row in np.flatnonzero(~finite):
        raise DivergenceError(f"seed {seeds[row]}, {where}: {OVERFLOW.text}.\n{MEND}")


def fresh_keys(keys: Key[Array, " S"], divergence_restarts: Int64[np.ndarray, " S"]) -> Key[Array, " S"]:
    """Each seed's key as it is before its first rollback, and another one after each."""
    told = jnp.asarray((LAST_WORD - np.maximum(divergence_restarts, 1)).astype(np.uint32))
    return jnp.where(jnp.asarray(divergence_restarts > 0), jax.vmap(jax.random.fold_in)(keys, told), keys)


def _fault(verdict: FiniteCheck, row: int, done: int, call: int) -> Divergence:
    """What the verdict says of one seed, in a call of `call` updates that began after `done` of them."""
    told = (verdict.lasted, verdict.before, verdict.parameter_absmax)
    lasted, before, absmax = jax.tree.map(lambda x: x[row].item(), jax.device_get(told))
    first = min(lasted.values())
    names = ", ".join(name for name, count in lasted.items() if count == first)
    what = f"not finite first: {names}, in update {done + first + 1:,}"
    if first == call:
        what = f"all losses were finite, what they led to after update {done + call:,} was not"
    when = "the update before" if first else "in that update"
    quoted = ", ".join(f"{name} {value:.3g}" for name, value in before.items() if name.endswith(QUOTED))
    return Divergence(f"{what}; {when}: {quoted}; largest parameter by now {absmax:.3g}", before)


def _of(row: int, value: float, rows: int) -> list[float | None]:
    """A list per seed with one entry."""
    return [value if i == row else None for i in range(rows)]
