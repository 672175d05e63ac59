import pytest
from runs import config

import cdred
from toy import Toy, learn_by


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The folder of a run of `config`; not to be changed."""
    out = tmp_path_factory.mktemp("run") / "run"
    cdred.train(config(out), quiet=True)
    return out


@pytest.fixture(scope="session")
def lived(tmp_path_factory):
    """The same by a method that compiles at once: to be compared with runs of `toy`, where any method would do."""
    out = tmp_path_factory.mktemp("lived") / "run"
    with pytest.MonkeyPatch.context() as patch:
        learn_by(patch, Toy())
        cdred.train(config(out), quiet=True)
    return out
