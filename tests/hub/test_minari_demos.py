"""Demonstrations by the id of a Minari dataset: local ones first, others by Minari's own download."""

import inspect
import json

import minari
import pytest

from cdred.data.demonstrations import load_demos
from cdred.data.formats.minari import save_minari
from cdred.demos.scripted import collect_scripted
from cdred.envs.registry import get_env_spec
from cdred.errors import UserError
from cdred.hub.demos import fetch_demos
from cdred.resolve import resolve_demos
from runs import run_config

DOWNLOAD, LIST = inspect.signature(minari.download_dataset), inspect.signature(minari.list_remote_datasets)


@pytest.fixture
def remote(tmp_path, monkeypatch):
    """Server with the dataset probe/point-v0, as Minari's functions show it. Returns the ids that were downloaded."""
    datasets, downloaded = tmp_path / "datasets", []
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(datasets))

    def download(*args, **kwargs):
        dataset_id = DOWNLOAD.bind(*args, **kwargs).arguments["dataset_id"]
        save_minari(collect_scripted("probe/point", 2), datasets / dataset_id)
        downloaded.append(dataset_id)

    def list_remote(*args, **kwargs):
        LIST.bind(*args, **kwargs)
        return {"probe/point-v0": {"dataset_size": 1.5}, "probe/point-v00": {}}

    monkeypatch.setattr(minari, "download_dataset", download)
    monkeypatch.setattr(minari, "list_remote_datasets", list_remote)
    return downloaded


def test_dataset_is_downloaded_once(remote, tmp_path):
    messages = []
    demos = resolve_demos(
        run_config("out", demos="minari://probe/point-v0"), get_env_spec("probe/point"), messages.append
    )
    assert len(demos) == 2
    assert demos.provenance["origin"]["address"] == "minari://probe/point-v0"
    path = tmp_path / "datasets" / "probe" / "point-v0"
    assert messages[0] == f"demonstrations: minari://probe/point-v0, 1.5 MB, are downloaded into {path}"
    fetched = fetch_demos("minari://probe/point-v0", messages.append)
    assert fetched.path == path
    assert fetched.origin == demos.provenance["origin"]
    assert remote == ["probe/point-v0"]
    assert messages[-1] == f"demonstrations: minari://probe/point-v0 is at {path}"


def test_unknown_dataset_is_named(remote):
    with pytest.raises(UserError, match="Minari's server has no such dataset"):
        fetch_demos("minari://probe/point-v1", print)
    assert remote == []


@pytest.mark.usefixtures("remote")
@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ImportError("no huggingface_hub"), r"pip install 'cdred\[hub\]'"),
        (ValueError("no network"), r"cannot be downloaded by Minari \(ValueError: no network\)"),
    ],
)
def test_failed_download_says_what_to_do(error, message, monkeypatch):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(minari, "list_remote_datasets", fail)
    with pytest.raises(UserError, match=message):
        fetch_demos("minari://probe/point-v0", print)


def test_dataset_with_missing_episodes_is_refused(tmp_path):
    """As after an interrupted download of a dataset with a file per episode."""
    save_minari(collect_scripted("probe/point", 2), tmp_path / "d")
    metadata = tmp_path / "d" / "data" / "metadata.json"
    content = json.loads(metadata.read_text())
    assert content["total_episodes"] == 2
    metadata.write_text(json.dumps(content | {"total_episodes": 3}))
    with pytest.raises(UserError, match=r"it has 2 episodes, but total_episodes in metadata\.json is 3: fetch"):
        load_demos(tmp_path / "d")
