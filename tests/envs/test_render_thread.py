"""Environments of one process that render: their images are independent of each other."""

import os
import threading
from contextlib import closing

import numpy as np
import pytest

from cdred.envs.opengl import VARIABLE
from cdred.envs.registry import make
from cdred.envs.render_thread import RenderThread

WALKER, REACH, HOPPER = (
    f"{task}?obs=pixels&size=32" for task in ("dmc/walker-walk", "metaworld/reach", "gym/Hopper-v5")
)
pytestmark = pytest.mark.skipif(os.environ.get(VARIABLE) == "disable", reason="this machine cannot render")


def image(env):
    return env.step(np.zeros(env.spec.action_dim, np.float32)).obs.image


@pytest.mark.parametrize(
    ("first", "second"), [(WALKER, REACH), (REACH, WALKER), (HOPPER, REACH), (HOPPER, WALKER), (HOPPER, HOPPER)]
)
def test_environments_do_not_draw_in_each_others_images(first, second):
    with closing(make(second)) as alone:
        alone.reset(3)
        expected = [image(alone) for _ in range(4)]
    one, other = make(first), make(second)
    one.reset(0)
    other.reset(3)
    images = [image(other)]
    image(one)
    images.append(image(other))
    one.close()
    images.append(image(other))
    with closing(make(first)) as third:
        third.reset(0)
    images.append(image(other))
    other.close()
    np.testing.assert_array_equal(images, expected)
    assert np.std(images) > 10


def test_calls_are_in_one_thread_which_ends(monkeypatch):
    monkeypatch.setenv(VARIABLE, "egl")
    thread = RenderThread()
    first, second = thread.run(threading.current_thread), thread.run(threading.current_thread)
    assert first is second is not threading.current_thread()
    with pytest.raises(ZeroDivisionError):
        thread.run(lambda: 1 // 0)
    freed_in = []
    thread.close(lambda: freed_in.append(threading.current_thread()))
    assert freed_in == [first]
    assert not first.is_alive()


@pytest.mark.parametrize("backend", ["glfw", None])
def test_other_backends_stay_in_the_calling_thread(monkeypatch, backend):
    monkeypatch.delenv(VARIABLE, raising=False)
    if backend:
        monkeypatch.setenv(VARIABLE, backend)
    thread = RenderThread()
    assert thread.run(threading.current_thread) is threading.current_thread()
    thread.close(lambda: None)
