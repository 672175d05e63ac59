from collections import OrderedDict

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from gymnasium.wrappers import FlattenObservation, NormalizeObservation, RescaleObservation

from cdred.demos.reference_scores import random_score
from cdred.envs.registry import make, without_images
from cdred.errors import UserError


class Echo(gymnasium.Env):
    """Observes the native action of the last step; the options select the rest of its behaviour."""

    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(self, terminates_after=None, reward=1.0, info=None, high=3.0, obs_space=None):
        self.observation_space = obs_space or Box(-10, 10, (2, 2), np.float64)
        self.action_space = Box(np.array([-1.0, 0.0]), np.array([1.0, high]), dtype=np.float64)
        self.terminates_after, self.reward, self.info = terminates_after, reward, info or {}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        self.count = 0
        return self.np_random.uniform(size=(2, 2)), {}

    def step(self, action):
        self.count += 1
        return np.stack([action, action]), self.reward, self.count == self.terminates_after, False, self.info


class Sampler(gymnasium.Env):
    """Observes samples of a space, or `obs` where it is given."""

    def __init__(self, space, obs=None, action_space=None):
        self.observation_space, self.obs = space, obs
        self.action_space = action_space or Box(-1, 1, (1,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        self.observation_space.seed(seed)
        return self._observe(), {}

    def step(self, _action):
        return self._observe(), 0.0, False, False, {}

    def _observe(self):
        return self.observation_space.sample() if self.obs is None else self.obs


def make_sampler(wrappers=(), **options):
    env = Sampler(**options)
    for wrapper in wrappers:
        env = wrapper(env)
    return env


class Reporter(gymnasium.Env):
    """Observes its instance's number of resets; ends after five steps, and its `info` at step t is `infos.get(t)`."""

    instances = 0

    def __init__(self, infos, fails_at=None):
        self.observation_space, self.action_space = Box(0, 99, (1,)), Box(-1, 1, (1,))
        self.infos, self.fails_at, self.resets = infos, fails_at, 0
        Reporter.instances += 1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        self.resets, self.time = self.resets + 1, 0
        return np.float32([self.resets]), {}

    def step(self, _action):
        self.time += 1
        if self.time == self.fails_at:
            raise OSError("the simulator is gone")
        return np.float32([self.resets]), 0.0, self.time == 5, False, self.infos.get(self.time, {})


@pytest.fixture
def register():
    """Registers an environment and returns its task; unregisters all afterwards."""
    registered = []

    def call(entry_point, limit=5, **options):
        name = f"CdredTest{len(registered)}-v0"
        gymnasium.register(name, entry_point=entry_point, max_episode_steps=limit, kwargs=options)
        registered.append(name)
        return f"gym/{name}"

    yield call
    for name in registered:
        del gymnasium.registry[name]


@pytest.fixture
def echo(register):
    """Registers an `Echo` with options and returns its task."""
    return lambda limit=5, **options: register(Echo, limit, **options)


@pytest.fixture
def sampler(register):
    """Registers a `Sampler` of a space with options and returns its task."""
    return lambda space, **options: register(make_sampler, space=space, **options)


def test_actions_are_scaled_and_clipped(echo):
    env = make(echo())
    env.reset(0)
    assert env.spec.obs_shape == (4,)
    for unit, native in (([-1, -1], [-1, 0]), ([1, 1], [1, 3]), ([0, 0], [0, 1.5]), ([5, -5], [1, 0])):
        np.testing.assert_allclose(env.step(np.array(unit, np.float32)).obs, native * 2)


def test_registered_time_limit_truncates(echo):
    env = make(echo(limit=3))
    env.reset(0)
    steps = [env.step(np.zeros(2, np.float32)) for _ in range(3)]
    assert env.spec.episode_length == 3
    assert [step.truncated for step in steps] == [False, False, True]
    assert not any(step.terminated for step in steps)


def test_control_timestep_is_known_of_mujoco_tasks_only():
    """Pendulum has an attribute `dt`, too, which need not mean the same elsewhere."""
    assert make("gym/Pendulum-v1").spec.control_timestep is None
    pytest.importorskip("mujoco", reason="the extra `mujoco`")
    env = make("gym/Hopper-v5")
    env.reset(0)
    for _ in range(5):
        env.step(np.zeros(3, np.float32))
    assert 5 * env.spec.control_timestep == pytest.approx(env._env.unwrapped.data.time)


def test_termination_is_not_truncation(echo):
    env = make(echo(limit=3, terminates_after=2))
    env.reset(0)
    env.step(np.zeros(2, np.float32))
    last = env.step(np.zeros(2, np.float32))
    assert (last.terminated, last.truncated) == (True, False)


def test_missing_time_limit_gives_default_and_warning(echo):
    with pytest.warns(UserWarning, match="truncated after 1000"):
        env = make(echo(limit=None))
    env.reset(0)
    steps = [env.step(np.zeros(2, np.float32)) for _ in range(1000)]
    assert [step.truncated for step in steps] == [False] * 999 + [True]


@pytest.mark.filterwarnings("ignore:.*truncated after 1000")
def test_termination_at_default_limit_is_not_truncation(echo):
    env = make(echo(limit=None, terminates_after=1000))
    env.reset(0)
    last = [env.step(np.zeros(2, np.float32)) for _ in range(1000)][-1]
    assert (last.terminated, last.truncated) == (True, False)


@pytest.mark.parametrize("key", ["success", "is_success"])
def test_reported_success_is_read(echo, key):
    env = make(echo(info={key: np.float64(1.0)}))
    env.reset(0)
    assert env.spec.has_success
    assert env.step(np.zeros(2, np.float32)).success is True


def episode(env):
    env.reset(0)
    return [env.step(np.zeros(1, np.float32)) for _ in range(5)]


@pytest.mark.parametrize("key", ["success", "is_success"])
def test_success_at_the_last_step_only_is_read(register, key):
    env = make(register(Reporter, 9, infos={5: {key: np.bool_(True)}}))
    assert env.spec.has_success
    assert [step.success for step in episode(env)] == [False] * 4 + [True]


@pytest.mark.parametrize("flag", [False, True])
def test_success_is_known_from_any_step(register, flag):
    env = make(register(Reporter, 5, infos={3: {"is_success": flag}}))
    assert env.spec.has_success
    assert [step.success for step in episode(env)] == [False, False, flag, False, False]


def test_env_that_never_reports_success_has_none(register):
    env = make(register(Reporter, 5, infos={5: {"episode": {"r": 1.0}}}))
    assert not env.spec.has_success
    assert not any(step.success for step in episode(env))


def test_looking_for_success_leaves_the_instance_untouched(register):
    assert make(register(Reporter, 5, infos={})).reset(0).tolist() == [1]


def test_success_is_looked_for_once_per_registered_env(register):
    task = register(Reporter, 5, infos={})
    before = Reporter.instances
    assert [make(task).spec.has_success for _ in range(3)] == [False] * 3
    assert Reporter.instances - before == 3 + 1
    name = task.removeprefix("gym/")
    del gymnasium.registry[name]
    gymnasium.register(name, Reporter, max_episode_steps=5, kwargs={"infos": {1: {"success": 1}}})
    assert make(task).spec.has_success


def test_success_beyond_the_steps_that_are_tried_is_reported(register, monkeypatch):
    monkeypatch.setattr("cdred.envs.suites.gym.MAX_PROBE_STEPS", 4)
    task = register(Reporter, 5, infos={5: {"success": True}})
    with pytest.warns(UserWarning, match="no success will be counted, because no step of the first 4 of an episode"):
        env = make(task)
    with pytest.warns(UserWarning, match="reports success now, .*: put 'success' into the info of every step"):
        steps = episode(env)
    assert not env.spec.has_success
    assert not any(step.success for step in steps)


def test_failure_while_looking_for_success_is_reported(register):
    with pytest.warns(UserWarning, match=r"because the episode .* failed \(OSError: the simulator is gone\)"):
        env = make(register(Reporter, 5, infos={5: {"success": True}}, fails_at=3))
    assert not env.spec.has_success


def test_seed_reproduces_the_episode():
    env, second_env = make("gym/Pendulum-v1"), make("gym/Pendulum-v1")
    actions = np.random.default_rng(0).uniform(-1, 1, (30, 1)).astype(np.float32)
    env.reset(1)
    first = [env.reset(2), *(env.step(action).obs for action in actions)]
    second = [second_env.reset(2), *(second_env.step(action).obs for action in actions)]
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first[0], env.reset(3))
    assert first[0].dtype == np.float32
    assert not env.spec.has_success


def test_non_finite_reward_is_rejected(echo):
    env = make(echo(reward=float("nan")))
    env.reset(0)
    with pytest.raises(FloatingPointError, match="reward nan"):
        env.step(np.zeros(2, np.float32))


def test_unbounded_actions_are_rejected(echo):
    with pytest.raises(UserError, match="unbounded"):
        make(echo(high=np.inf))


@pytest.mark.parametrize("space", [Discrete(3), MultiDiscrete([2, 3]), MultiBinary(4)], ids=str)
def test_discrete_actions_and_observations_are_rejected(sampler, space):
    reason = "; only continuous .Box. spaces are supported: wrap the environment, e.g. in gymnasium.wrappers."
    with pytest.raises(UserError, match=f"its action space is {type(space).__name__}.*{reason}TransformAction"):
        make(sampler(VECTOR, action_space=space))
    with pytest.raises(UserError, match=f"gym/CdredTest1-v0: its observation space is .*{reason}FlattenObservation"):
        make(sampler(space))
    with pytest.raises(UserError, match=f"part 'mode' of its observation space is {type(space).__name__}"):
        make(sampler(Dict(state=VECTOR, mode=space)))
    one_hot = make(sampler(Dict(state=VECTOR, mode=space), wrappers=[FlattenObservation]))
    assert one_hot.reset(0).shape == one_hot.spec.obs_shape


def test_integer_actions_are_rejected(sampler):
    space = Box(0, 4, (2,), np.int64)
    with pytest.raises(UserError, match=r"its action space is a Box of int64; .*would be rounded: .*TransformAction"):
        make(sampler(VECTOR, action_space=space))


VECTOR = Box(-9, 9, (3,))
IMAGES = [
    Box(0, 255, (64, 64, 3), np.uint8),
    Box(0, 255, (64, 64), np.uint8),
    Box(0, 1, (3, 8, 8)),
    Box(0, 1, (4, 3, 8, 8)),
]


@pytest.mark.parametrize("image", IMAGES, ids=lambda box: str(box.shape))
def test_images_are_refused_where_vectors_are_observed(sampler, image):
    expected = rf"is an image, Box\({', '.join(map(str, image.shape))}\) of {image.dtype}: observe it with --obs pixels"
    with pytest.raises(UserError, match=f"its observation space {expected}"):
        make(sampler(image))
    with pytest.raises(UserError, match=f"part 'eye/camera' of its observation space {expected}"):
        make(sampler(Dict(state=VECTOR, eye=Dict(camera=image))))


CAMERA = np.arange(64 * 96 * 3, dtype=np.uint32).reshape(64, 96, 3).astype(np.uint8)


@pytest.mark.parametrize("kind", ["pixels", "both"])
def test_image_of_an_observation_is_observed(sampler, kind):
    obs = {"state": np.float32([1, 2, 3]), "eye": {"camera": CAMERA}}
    space = Dict(state=VECTOR, eye=Dict(camera=Box(0, 255, CAMERA.shape, np.uint8)))
    env = make(f"{sampler(space, obs=obs)}?obs={kind}&size=32")
    first = env.reset(0)
    np.testing.assert_array_equal(first.state, [1, 2, 3] if kind == "both" else [])
    assert env.spec.obs_parts == ((("state", 3),) if kind == "both" else ())
    # Means of areas of 2 x 3 pixels.
    areas = CAMERA.reshape(32, 2, 32, 3, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(first.image, areas, atol=1)
    np.testing.assert_array_equal(env.step(np.zeros(1, np.float32)).obs.image, first.image)


def test_random_score_of_a_task_that_observes_an_image(sampler):
    task = f"{sampler(Box(0, 255, (32, 32), np.uint8), obs=CAMERA[:32, :32, 0])}?obs=pixels&size=32"
    assert random_score(task, 1).episode_return == 0.0


def test_image_alone_is_observed(sampler):
    image = CAMERA[:32, :32]
    env = make(f"{sampler(Box(0, 255, image.shape, np.uint8), obs=image)}?obs=pixels&size=32")
    np.testing.assert_array_equal(env.reset(0).image, image)
    assert without_images(env.spec.task) == env.spec.task
    gray = make(f"{sampler(Box(0, 255, (32, 32), np.uint8), obs=image[..., 0])}?obs=pixels&size=32").reset(0)
    np.testing.assert_array_equal(gray.image, image[..., :1].repeat(3, axis=2))


@pytest.mark.parametrize("image", [IMAGES[2], IMAGES[3], Box(0, 255, (3, 64, 64), np.uint8)], ids=str)
def test_images_of_another_layout_are_refused(sampler, image):
    with pytest.raises(UserError, match=r"expected \[H, W\], \[H, W, 1\] or \[H, W, 3\] of uint8, channels last"):
        make(f"{sampler(Dict(state=VECTOR, camera=image))}?obs=pixels")


def test_several_images_are_refused(sampler):
    space = Dict(left=IMAGES[0], right=IMAGES[0])
    with pytest.raises(UserError, match="several images, left, right: select one"):
        make(f"{sampler(space)}?obs=pixels")


def test_environment_that_neither_observes_nor_renders_an_image_is_refused(sampler):
    with pytest.raises(UserError, match="cannot be rendered: it has no render mode `rgb_array`"):
        make(f"{sampler(VECTOR)}?obs=pixels")


def test_byte_vectors_and_float_matrices_are_no_images(sampler):
    assert make(sampler(Box(0, 255, (128,), np.uint8))).spec.obs_shape == (128,)
    assert make(sampler(Box(-1, 1, (4, 4)))).spec.obs_shape == (16,)


# Dict sorts the keys of a dict, but keeps the order of keyword arguments, of pairs, and of an OrderedDict.
ORDERS = {
    "dict": (Dict({"state": VECTOR, "flow": Box(-1, 1, (1,))}), (("flow", 1), ("state", 3))),
    "keywords": (Dict(state=VECTOR, flow=Box(-1, 1, (1,))), (("state", 3), ("flow", 1))),
    "OrderedDict": (Dict(OrderedDict(state=VECTOR, flow=Box(-1, 1, (1,)))), (("state", 3), ("flow", 1))),
    "unsorted": (Dict({"state": VECTOR, "flow": Box(-1, 1, ())}, sort_keys=False), (("state", 3), ("flow", 1))),
    "nested": (
        Dict([("z", Dict([("b", VECTOR), ("a", Box(-1, 1, (2, 2), np.float64))])), ("c", Box(-1, 1, (1,)))]),
        (("z/b", 3), ("z/a", 4), ("c", 1)),
    ),
    "Tuple": (
        Tuple([Box(i, i + 1, (1,)) for i in range(11)] + [Dict(x=VECTOR)]),
        (*((str(i), 1) for i in range(11)), ("11/x", 3)),
    ),
}


@pytest.mark.parametrize(("space", "parts"), ORDERS.values(), ids=ORDERS.keys())
def test_dict_is_flattened_in_order_of_the_space(sampler, space, parts):
    env, flattened = make(sampler(space)), make(sampler(space, wrappers=[FlattenObservation]))
    assert env.spec.obs_parts == flattened.spec.obs_parts == parts
    assert env.spec.obs_shape == (sum(width for _, width in parts),)
    action = np.zeros(1, np.float32)
    np.testing.assert_array_equal(env.reset(3), flattened.reset(3))
    np.testing.assert_array_equal(env.step(action).obs, flattened.step(action).obs)
    assert env.step(action).obs.dtype == np.float32


def test_parts_have_known_positions(sampler):
    obs = {"flow": np.float32([7]), "state": np.float32([1, 2, 3]), "unused": "text"}
    env = make(sampler(Dict(state=VECTOR, flow=Box(-9, 9, (1,))), obs=obs))
    assert env.reset(0).tolist() == [1, 2, 3, 7]


def test_names_are_known_only_below_wrappers_that_keep_the_parts(sampler):
    space = Dict(state=VECTOR, flow=Box(-1, 1, (1,)))
    wrap = lambda *wrappers: make(sampler(space, wrappers=wrappers)).spec.obs_parts  # noqa: E731
    assert wrap(FlattenObservation, gymnasium.Wrapper) == (("state", 3), ("flow", 1))
    assert wrap(FlattenObservation, NormalizeObservation) == ()
    assert wrap(FlattenObservation, lambda env: RescaleObservation(env, np.float32(0), np.float32(1))) == ()
    assert make(sampler(VECTOR)).spec.obs_parts == ()


def test_two_parts_of_one_name_are_rejected(sampler):
    with pytest.raises(UserError, match=r"distinct names, it has \['a/b', 'a/b'\]"):
        make(sampler(Dict([("a/b", VECTOR), ("a", Dict(b=VECTOR))])))


STATE_FLOW = Dict(state=VECTOR, flow=Box(-9, 9, (1,)))


@pytest.mark.parametrize(
    ("space", "obs", "message"),
    [
        (Box(-9, 9, (2, 2)), np.zeros(4), r"returned shape \(4,\) for the observation, expected \(2, 2\)"),
        (VECTOR, np.zeros((1, 3)), r"returned shape \(1, 3\) for the observation, expected \(3,\)"),
        (VECTOR, {"state": np.zeros(3)}, r"returned shape \(\) for the observation"),
        (STATE_FLOW, {"state": np.zeros(1), "flow": np.zeros(3)}, r"\(1,\) for the part 'state' of its observation"),
        (STATE_FLOW, {"state": np.zeros(3)}, "returned no part 'flow' of its observation"),
        (STATE_FLOW, np.zeros(4), "returned no part 'state' of its observation"),
    ],
)
def test_observation_of_another_shape_is_rejected(sampler, space, obs, message):
    env = make(sampler(space, obs=obs))
    with pytest.raises(ValueError, match=message):
        env.reset(0)
    with pytest.raises(ValueError, match=message):
        env.step(np.zeros(1, np.float32))


def test_missing_render_mode_is_reported(echo):
    env = make(echo())
    env.reset(0)
    with pytest.raises(UserError, match="rgb_array"):
        env.render()
