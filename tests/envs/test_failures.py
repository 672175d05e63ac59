"""Simulators that break: mended where they can be, and nothing but an episode lost where they cannot."""

import os
import re
import signal
import sys

import numpy as np
import pytest

import failing_env
from cdred.envs import executors
from cdred.envs.failures import FailureCounts, SimulatorError, one_line
from cdred.envs.remote.interpreter import Interpreter
from cdred.envs.suites import probes
from cdred.envs.vector_env import VectorEnv, episode_seed
from cdred.errors import UserError
from failing_env import Faulty, plan_faults

TASK, SEEDS, ENVS, STEPS = "probe/point", (0, 7), 2, 45
WRONG = ("raise", "nan", "reward", "large", "shape", "success", "none")
VICTIM = (1, 0)


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """Puts a simulator with faults in the place of `probe/point`, and says which."""
    monkeypatch.setenv(failing_env.FILE, str(tmp_path / "faults"))
    monkeypatch.setitem(probes._PROBES, "point", Faulty)

    def planned(*faults):
        plan_faults(tmp_path / "faults", *faults)

    planned()
    return planned


@pytest.fixture
def apart(plan, monkeypatch):
    """The same in processes of their own, two of them with `process`."""
    monkeypatch.setattr(executors, "host", lambda _task: Interpreter(sys.executable, "failing_env", tuple(sys.path)))
    monkeypatch.setattr(executors, "usable_cores", lambda: 2)
    return plan


@pytest.fixture(scope="module")
def undisturbed():
    with VectorEnv(TASK, SEEDS, ENVS) as grid:
        return lived(grid)


def opened(said, mode="sync", **options):
    return VectorEnv(TASK, SEEDS, ENVS, vectorization=mode, say=said.append, **options)


def lived(grid, steps=STEPS, before=None):
    """What each cell shows, step by step, with actions that depend on the count alone: `[cell][t]`."""
    generator, shape = np.random.default_rng(0), (*grid.shape, grid.spec.action_dim)
    obs = grid.reset()
    seen = {cell: [(obs[cell],)] for cell in np.ndindex(grid.shape)}
    for t in range(steps):
        if before:
            before(t)
        step = grid.step(generator.uniform(-1, 1, shape).astype(np.float32))
        obs = grid.reset(step.ended)
        for cell, story in seen.items():
            story.append((*(field[cell] for field in step), obs[cell]))
    return seen


def assert_same(one, other, cells=None):
    for cell in cells or one:
        for t, (a, b) in enumerate(zip(one[cell], other[cell], strict=True)):
            for x, y in zip(a, b, strict=True):
                np.testing.assert_array_equal(x, y, err_msg=f"{cell} at {t}")


def others():
    return [cell for cell in np.ndindex(len(SEEDS), ENVS) if cell != VICTIM]


@pytest.mark.parametrize("mode", ["sync", "thread"])
@pytest.mark.parametrize("what", [*WRONG, "leave"])
def test_what_breaks_once_is_brought_back_and_nothing_is_lost(plan, undisturbed, what, mode):
    plan((7, 0, 1, 6, what, True))
    said = []
    with opened(said, mode) as grid:
        assert_same(lived(grid), undisturbed)
        assert grid.broken.tolist() == [0, 0]
    assert len(said) == 1
    assert said[0].startswith("probe/point, seed 7, environment 0: made anew and brought back, nothing is lost: ")
    assert "\n" not in said[0]


@pytest.mark.parametrize("what", WRONG)
def test_what_breaks_again_costs_its_episode_and_is_no_transition(plan, undisturbed, what):
    plan((7, 0, 1, 6, what))
    said = []
    with opened(said) as grid:
        seen = lived(grid)
        assert grid.broken.tolist() == [0, 1]
        assert grid.snapshot()["length"].tolist() == [[5, 5], [45 - 26, 5]]
    assert_same(seen, undisturbed, others())
    story = seen[VICTIM]
    assert_same({VICTIM: story[:26]}, {VICTIM: undisturbed[VICTIM][:26]})
    obs, reward, terminated, truncated, success, void, begun = story[26]
    # The sixth step of the second episode did not happen: nothing came of it but the start of the third.
    np.testing.assert_array_equal(obs, story[25][-1])
    assert (reward, terminated, truncated, success, void) == (0, False, False, False, True)
    np.testing.assert_array_equal(begun, probes.Point().reset(episode_seed(7, "train", 0, 2)))
    assert sum(row[5] for row in story[1:]) == 1
    assert len(said) == 1
    assert said[0].startswith("probe/point, seed 7, environment 0: its episode 1 is given up at step 6: ")


def test_a_message_is_one_line_that_says_where_it_was_raised(plan):
    plan((0, 0, 0, 1, "raise"))
    said = []
    with opened(said) as grid:
        lived(grid, 1)
    assert re.search(r"given up at step 1: ZeroDivisionError: the wheel \(failing_env\.py:\d+\)$", said[0])


def test_whoever_does_not_listen_is_warned(plan):
    plan((0, 0, 0, 1, "raise"))
    with VectorEnv(TASK, [0]) as grid, pytest.warns(RuntimeWarning, match="given up"):
        lived(grid, 1)


@pytest.mark.parametrize("what", ["raise", "nan", "shape"])
def test_an_episode_that_cannot_begin_is_passed_over(plan, what):
    plan((7, 0, 1, 0, what))
    said = []
    with opened(said) as grid:
        seen = lived(grid)
        assert grid.broken.tolist() == [0, 1]
    assert not any(row[5] for row in seen[VICTIM][1:])
    np.testing.assert_array_equal(seen[VICTIM][20][-1], probes.Point().reset(episode_seed(7, "train", 0, 2)))
    assert "its episode 1 is given up at step 1" in said[0]


@pytest.mark.parametrize(("what", "mode"), [("die", "sync"), ("hang", "process")])
def test_a_process_that_dies_or_hangs_is_begun_again_and_the_others_in_it_lose_nothing(apart, undisturbed, what, mode):
    # Once in the first episode, which is mended; every time in the second, which is given up.
    apart((7, 0, 0, 6, what, True), (7, 0, 1, 6, what))
    said = []
    with opened(said, mode, env_step_timeout=1.5) as grid:
        seen = lived(grid)
        assert grid.broken.tolist() == [0, 1]
        assert grid.snapshot()["length"].tolist() == [[5, 5], [45 - 26, 5]]
    assert_same(seen, undisturbed, others())
    assert_same({VICTIM: seen[VICTIM][:26]}, {VICTIM: undisturbed[VICTIM][:26]})
    assert seen[VICTIM][26][5]
    reason = {
        "die": "ended with exit code 7; it last said: out of luck",
        "hang": "took more than 1.5 s (--env-step-timeout)",
    }
    given_up = [line for line in said if "is given up at step 6" in line]
    assert len(given_up) == 1
    assert reason[what] in given_up[0]
    assert reason[what] in said[0]
    assert "nothing is lost" in said[0]


def test_processes_killed_from_outside_are_begun_again_and_nothing_at_all_is_lost(undisturbed, monkeypatch):
    monkeypatch.setattr(executors, "usable_cores", lambda: 2)
    said = []

    def kill(t):
        if t in (0, 13, 30):
            os.kill(grid._crew._workers[t % 2].pid, signal.SIGKILL)

    with opened(said, "process") as grid:
        assert_same(lived(grid, before=kill), undisturbed)
        assert grid.broken.tolist() == [0, 0]
    assert len(said) == 3
    assert all("was ended by signal 9" in line for line in said)


@pytest.mark.parametrize(("step", "row"), [(1, "3 episodes.*step"), (4, "10 episodes.*finished episode")])
def test_a_simulator_that_only_breaks_ends_it(plan, step, row):
    plan((None, 0, None, step, "raise"))
    said = []
    with opened(said) as grid, pytest.raises(SimulatorError, match=f"probe/point, seed 0, environment 0: {row}") as it:
        lived(grid, 100)
    assert issubclass(it.type, UserError)
    assert "ZeroDivisionError: the wheel" in str(it.value)
    assert str(it.value).splitlines()[1:] == ["Mend the simulator, then give the same command again."]


def test_episodes_that_break_now_and_then_do_not_add_up(plan):
    plan(*((0, 0, episode, 5, "raise") for episode in range(0, 40, 2)))
    with VectorEnv(TASK, [0], say=lambda _: None) as grid:
        lived(grid, 500)
        assert grid.broken.tolist() == [20]


def test_a_simulator_that_cannot_be_made_again_ends_it(plan, monkeypatch):
    plan((7, 0, 0, 2, "raise"))
    with opened([]) as grid:
        monkeypatch.setattr(grid._crew, "_make", lambda: 1 / 0)
        with pytest.raises(SimulatorError, match=r"broke \(ZeroDivisionError: the wheel.*cannot be made again: Zero"):
            lived(grid)


def test_one_that_does_not_come_back_the_same_is_given_up_with_the_decision_that_it_answered(plan, monkeypatch):
    """The fault of one costs another its process, which then turns out to be no longer what it was."""
    plan((7, 0, 0, 6, "raise", True))
    said = []
    with opened(said) as grid:
        whole = grid._crew.renew

        def renewed(indices):
            grid._crew._envs[0] = type("Slower", (Faulty,), {"SPEED": 0.1})()
            return whole(indices) | {0}

        monkeypatch.setattr(grid._crew, "renew", renewed)
        seen = lived(grid, 6)
        assert grid.broken.tolist() == [1, 0]
    assert [cell for cell in seen if seen[cell][6][5]] == [(0, 0)]
    assert seen[0, 0][6][1] == 0
    assert "episode 0 is given up at step 7: RuntimeError: living through the episode again gave other" in said[0]


def test_a_restored_grid_goes_on_as_if_nothing_had_happened_also_where_episodes_were_given_up(plan):
    plan((7, 0, 0, 4, "raise"), (0, 1, 0, 20, "nan"), (0, 0, 1, 3, "raise"), (7, 0, 1, 1, "nan"))
    for taken in (3, 4, 5, 20, 21, 23, 30):
        with opened([]) as grid, opened([]) as resumed:
            lived(grid, taken)
            resumed.restore(grid.snapshot())
            generator = np.random.default_rng(1)
            for _ in range(30):
                action = generator.uniform(-1, 1, (2, 2, 2)).astype(np.float32)
                one, other = grid.step(action), resumed.step(action)
                for x, y in zip(one, other, strict=True):
                    np.testing.assert_array_equal(x, y)
                np.testing.assert_array_equal(grid.reset(one.ended), resumed.reset(other.ended))
            assert grid.broken.tolist() == resumed.broken.tolist() != [0, 0]
            for name, value in grid.snapshot().items():
                np.testing.assert_array_equal(value, resumed.snapshot()[name], err_msg=name)


def test_an_episode_given_up_is_not_lived_through_again_and_a_reset_must_follow(plan):
    plan((0, 0, 0, 4, "raise"))
    with VectorEnv(TASK, [0], say=lambda _: None) as grid:
        grid.reset()
        while not grid.step(np.zeros((1, 1, 2))).void.any():
            pass
        with pytest.raises(RuntimeError, match="reset"):
            grid.step(np.zeros((1, 1, 2)))
        snapshot = grid.snapshot()
        plan((0, 0, 0, 1, "raise"))
        with VectorEnv(TASK, [0]) as resumed:
            resumed.restore(snapshot)
            np.testing.assert_array_equal(resumed.reset(), grid.reset())
            assert resumed.broken.tolist() == [1]


def test_a_checkpoint_in_an_episode_that_breaks_now_cannot_be_gone_on_from(plan):
    with VectorEnv(TASK, [0], say=lambda _: None) as grid:
        lived(grid, 5)
        snapshot = grid.snapshot()
        plan((0, 0, 0, 2, "raise"))
        with pytest.raises(SimulatorError, match="environment 0: the episode that the checkpoint was taken in breaks"):
            grid.restore(snapshot)


def test_strikes_of_the_host_and_of_arrays_count_alike():
    generator = np.random.default_rng(0)
    strikes = FailureCounts.none((1, 1))
    stuck = unfinished = broken = 0
    for kind in generator.choice(["void", "lived", "finished"], 200):
        void, finished = np.array([[kind == "void"]]), np.array([[kind == "finished"]])
        strikes = strikes.after(void, finished)
        broken += kind == "void"
        stuck = stuck + 1 if kind == "void" else 0
        unfinished = unfinished + 1 if kind == "void" else unfinished * (kind != "finished")
        assert [int(count[0, 0]) for count in strikes] == [broken, stuck, unfinished]


def test_one_line_of_an_error_without_words_is_its_kind():
    assert one_line(ValueError()) == "ValueError"
