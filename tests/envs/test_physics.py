"""Tasks with other masses and friction coefficients."""

from contextlib import closing

import mujoco
import numpy as np
import pytest

from cdred.envs.physics import scale_physics
from cdred.envs.registry import make
from cdred.errors import UserError
from cdred.task_name import PhysicsFactors

XML = """
<mujoco>
  <worldbody>
    <geom name="floor" type="plane" size="1 1 1"/>
    <body pos="0 0 1"><freejoint/><geom name="ball" size="0.1" mass="{mass}" friction="{friction} 0.01 0.001"/></body>
  </worldbody>
  <contact><pair geom1="ball" geom2="floor" friction="{friction} {friction} 0.01 0.001 0.001"/></contact>
</mujoco>
"""


def test_scaled_model_is_the_one_compiled_from_scaled_values():
    scaled = mujoco.MjModel.from_xml_string(XML.format(mass=2.0, friction=0.4))
    scale_physics(scaled, mujoco.MjData(scaled), PhysicsFactors(mass=3.0, friction=0.5))
    expected = mujoco.MjModel.from_xml_string(XML.format(mass=6.0, friction=0.2))
    for name in ("body_mass", "body_inertia", "body_subtreemass", "body_invweight0", "dof_invweight0", "dof_M0"):
        np.testing.assert_allclose(getattr(scaled, name), getattr(expected, name), rtol=1e-9, err_msg=name)
    np.testing.assert_allclose(scaled.geom_friction[1, 0], 0.2)
    np.testing.assert_allclose(scaled.pair_friction[0, :2], 0.2)


@pytest.mark.parametrize("task", ["dmc/walker-walk", "metaworld/bin-picking"])
@pytest.mark.parametrize("parameters", ["mass=0.5", "friction=0.1", "repeat=1&mass=0.5&friction=0.1"])
def test_task_with_other_physics_has_other_episodes(task, parameters):
    def observations(name):
        rng = np.random.default_rng(0)
        with closing(make(name)) as env:
            assert env.spec.task == name
            env.reset(4)
            env.step(np.ones(env.spec.action_dim, np.float32))
            env.reset(3)
            actions = rng.uniform(-1, 1, (40, env.spec.action_dim)).astype(np.float32)
            return np.stack([env.step(action).obs for action in actions])

    changed = observations(f"{task}?{parameters}")
    np.testing.assert_array_equal(changed, observations(f"{task}?{parameters}"))
    plain = observations(f"{task}?repeat=1" if "repeat" in parameters else task)
    assert np.isfinite(changed).all()
    # Touching nothing, the arm of Meta-World does not depend on friction.
    assert np.allclose(changed, plain, atol=1e-6) == (task.startswith("metaworld") and parameters == "friction=0.1")


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("dmc/walker-walk?mass=0", "mass should be a positive factor other than 1, as 0.5, got '0'"),
        ("dmc/walker-walk?mass=1", "got '1'"),
        ("dmc/walker-walk?mass=inf", "got 'inf'"),
        ("dmc/walker-walk?mass=nan", "got 'nan'"),
        ("metaworld/reach?friction=low", "friction should be a positive factor other than 1, as 0.5, got 'low'"),
        ("metaworld/reach?friction=0.50", r"use the name 'metaworld/reach\?friction=0.5' of this task"),
        ("metaworld/reach?friction=2&mass=3", r"use the name 'metaworld/reach\?mass=3&friction=2' of this task"),
        ("probe/point?mass=2", "tasks of this suite have no parameter mass, expected 'probe/point'"),
    ],
)
def test_wrong_parameter_is_refused(task, message):
    with pytest.raises(UserError, match=message):
        make(task)
