"""Camera images as observations, of environments that observe one or can be rendered."""

from dataclasses import replace

import numpy as np
from jaxtyping import Float32, UInt8

from cdred.envs.base import Env, Obs, Step, resize_nearest, validate_obs
from cdred.types import ImageObs


class PixelEnv:
    """Environment that is observed by its images.

    Args:
        env: the environment. Its method `observed_image`, if it has one, returns the image that belongs to the last
            observation, and otherwise, or where that is None, `render`, of `size` x `size`.
        task: name of the task with images.
        size: height and width of the images.
        with_state: the environment's own observation is observed, too.
        render_size: side of the frames that `render` returns; None for the images as they are observed.

    Raises:
        UserError: the environment cannot be rendered.
        ValueError: it renders images of another size.
    """

    def __init__(self, env: Env, task: str, size: int, *, with_state: bool, render_size: int | None = None):
        self._env, self._with_state, self._render_size = env, with_state, render_size
        state = {} if with_state else {"obs_shape": (0,), "obs_parts": ()}
        self.spec = replace(env.spec, task=task, image_size=size, **state)
        # So that what cannot be rendered is refused, and not taken for a failing simulator in every episode.
        self.reset(0)

    def reset(self, seed: int) -> ImageObs:
        return self._observe(self._env.reset(seed))

    def step(self, action: Float32[np.ndarray, " A"]) -> Step:
        step = self._env.step(action)
        return step._replace(obs=self._observe(step.obs))

    def _observe(self, state: Obs) -> ImageObs:
        state = state if self._with_state else np.zeros(0, np.float32)
        obs = ImageObs(state, self._image())
        validate_obs(self.spec, obs)
        return obs

    def _image(self) -> UInt8[np.ndarray, "H W 3"]:
        observed = getattr(self._env, "observed_image", lambda: None)()
        return self._env.render() if observed is None else observed

    def render(self) -> UInt8[np.ndarray, "H W 3"]:
        return resize_nearest(self._image(), self._render_size)

    def close(self) -> None:
        self._env.close()
