"""Device, precision of matrix products, and memory."""

import jax
import pytest

from cdred.doctor import device
from cdred.doctor.checks import ProbeError
from cdred.doctor.device_probe import cdred_product, default_product, describe, measure_precision
from cdred.nn.precision import dot

FOUND = {
    "backend": "cpu",
    "devices": ["cpu cpu", "cpu cpu"],
    "precision": {"cdred": "float32", "jax": "tf32"},
    "memory": {"networks": 2**20, "optimizers": 2**21, "agent_buffer": 0, "agent_images": 0, "expert_buffer": None},
    "memory_limit": None,
    "host_memory": 2**30,
}


@pytest.mark.parametrize(("precision", "named"), [("float32",) * 2, ("tf32",) * 2, ("bfloat16", "bfloat16 or lower")])
def test_measured_precision_is_that_of_the_product(precision, named):
    def product(x, weight):
        return jax.vmap(lambda row: dot(row, weight, precision))(x)

    assert measure_precision(product) == named


def test_products_on_this_cpu_are_float32():
    assert measure_precision(cdred_product) == measure_precision(default_product) == "float32"


def test_description_has_the_memory_of_the_preset(spec):
    found = describe("debug", spec)
    assert found["precision"]["cdred"] == "float32"
    assert found["memory"]["agent_buffer"] < found["memory"]["networks"] < describe("paper", spec)["memory"]["networks"]
    assert describe("debug", None)["memory"] is None


@pytest.fixture
def checks(monkeypatch, spec, tmp_path):
    """Return a function that makes the checks of what a probe found, with and without an NVIDIA driver."""

    def run(driver=False, **found):
        monkeypatch.setattr(device, "run_probe", lambda *_, **__: FOUND | found)
        path = tmp_path if driver else tmp_path / "none"
        return {check.name: check for check in device.check_device("cpu", spec, driver=path)}

    return run


def test_unused_gpu_is_reported_with_the_command(checks):
    assert checks()["device"].mark == "ok"
    check = checks(driver=True)["device"]
    assert (check.mark, check.fix) == ("missing", "pip install 'cdred[cuda]'")
    assert checks(driver=True, backend="gpu")["device"].mark == "ok"


def test_memory_is_compared_with_that_of_the_device(checks):
    check = checks()["memory, preset cpu"]
    assert (check.mark, check.result[:8]) == ("ok", "3.0 MiB ")
    assert "expert" not in check.result
    assert checks(memory_limit=4 * 2**20)["memory, preset cpu"].mark == "ok"
    assert checks(memory_limit=2**20)["memory, preset cpu"].mark == "problem"
    assert checks(memory=None)["memory, preset cpu"].result.startswith("unknown")


def test_images_that_only_the_host_can_hold_are_moved_there(checks):
    images = FOUND["memory"] | {"agent_images": 2**28}
    check = checks(memory=images)["memory, preset cpu"]
    assert (check.mark, check.fix) == ("ok", "")
    assert "agent images 256.0 MiB" in check.result
    assert check.result.endswith("with --replay-images host the agent images are in host memory, which has 1,024.0 MiB")
    check = checks(memory=images, memory_limit=2**27)["memory, preset cpu"]
    assert (check.mark, check.fix) == ("problem", "add --replay-images host")
    # Neither has enough: too little on the device for the rest, or too little on the host for the images.
    for found in ({"memory_limit": 2**20}, {"memory_limit": 2**27, "host_memory": 2**27}):
        assert checks(memory=images, **found)["memory, preset cpu"].fix == "add --buffer-size N with a smaller N"


def test_products_below_float32_are_a_problem(checks):
    assert checks()["precision"].mark == "ok"
    assert checks(precision={"cdred": "tf32", "jax": "tf32"})["precision"].mark == "problem"


def test_device_that_fails_is_a_problem(monkeypatch):
    def fail(*_, **__):
        raise ProbeError("no driver")

    monkeypatch.setattr(device, "run_probe", fail)
    (check,) = device.check_device("cpu", None)
    assert (check.mark, check.result) == ("problem", "JAX cannot be used: no driver")
