"""Memory of a run from shapes equals that of the arrays of a run."""

from dataclasses import replace

import equinox as eqx
import jax
import pytest

from cdred.config import preset
from cdred.data.replay_buffer import from_trajectories
from cdred.demos.scripted import collect_scripted
from cdred.envs.registry import get_env_spec
from cdred.host_memory import host_memory
from cdred.train.keys import INIT, seed_keys
from cdred.train.memory import run_memory
from cdred.train.setup import make_compiled_fns
from runs import run_config


def num_bytes(tree):
    return sum(leaf.nbytes for leaf in jax.tree.leaves(eqx.filter(tree, eqx.is_array)))


def test_memory_is_that_of_the_arrays(tmp_path):
    config, spec = run_config(tmp_path), get_env_spec("probe/point")
    memory = run_memory(config, spec)
    learner = make_compiled_fns(config, spec).init(seed_keys(config.seeds, INIT))
    optimizers = num_bytes((learner.model_opt_state, learner.policy_opt_state))
    assert memory.optimizers == optimizers > 0
    assert memory.networks == num_bytes(learner) - optimizers
    expert = from_trajectories(list(collect_scripted("probe/point", 3)), spec, config.mppi.horizon)
    assert memory.expert_buffer == num_bytes(expert)


def test_agent_buffer_is_one_row_per_step_and_one_per_episode(spec):
    """200 steps are 2 episodes of 100, and one row each for a final observation, a running episode and the next."""
    row = 4 * (3 + 2 + 1 + 1) + 3
    assert run_memory(preset("debug"), spec).agent_buffer == (200 + 3 + 1) * row + 4
    assert run_memory(preset("paper"), spec).agent_buffer == (500_000 + 5001 + 1) * row + 4


def test_images_of_the_agent_buffer_are_counted_separately(spec):
    with_images = replace(spec, image_size=32)
    memory, without = run_memory(preset("debug"), with_images), run_memory(preset("debug"), spec)
    assert (memory.agent_images, without.agent_images) == ((200 + 3 + 1) * 32 * 32 * 3, 0)
    assert memory.agent_buffer == without.agent_buffer


def test_available_memory_is_part_of_that_of_the_machine():
    memory = host_memory()
    assert memory.total > 2**20
    assert memory.available is None or 0 < memory.available < memory.total


def test_number_of_demonstrations_in_a_file_is_unknown(spec, tmp_path):
    assert run_memory(run_config(tmp_path, demos="some/file.npz"), spec).expert_buffer is None


@pytest.mark.parametrize(("algo", "without"), [("bc", "agent_buffer"), ("tdmpc2", "expert_buffer")])
def test_method_has_only_the_buffers_that_it_uses(algo, without, spec, tmp_path):
    memory = run_memory(run_config(tmp_path, algo=algo), spec)
    assert getattr(memory, without) < 1000 < memory.networks
