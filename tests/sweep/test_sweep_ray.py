"""Options of Ray that are refused before a cluster is looked for or used."""

import importlib.util

import pytest

from cdred.errors import UserError
from cdred.sweep.ray_tasks import RayBackend

pytestmark = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the extra `ray`: make test-clusters")


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("127.0.0.1:1", "nothing answers there"),
        ("127.0.0.1", "it is not HOST:PORT"),
        ("127.0.0.1:99999", "nothing answers there"),
        ("ray.invalid:6379", "nothing answers there"),
    ],
)
def test_address_without_a_cluster_is_refused_at_once(address, reason):
    with pytest.raises(UserError, match=f"--ray-address {address}: {reason}") as error:
        RayBackend(address, cpus=1, gpus=0)
    assert "ray start --head" in str(error.value)


@pytest.mark.slow
def test_more_than_this_machine_has_is_refused():
    with pytest.raises(UserError, match=r"--cpus-per-run 100000: Ray finds \d+ of them on this machine"):
        RayBackend("", cpus=100_000, gpus=0)
