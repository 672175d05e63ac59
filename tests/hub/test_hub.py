"""Push, pull and demonstrations by the hub: `huggingface_hub` itself, with a server on this machine."""

import sys

import numpy as np
import pytest

import cdred
from cdred.data.formats.npz import save_npz
from cdred.demos.scripted import collect_scripted
from cdred.envs.registry import get_env_spec
from cdred.errors import UserError
from cdred.hub.address import parse_hub_address
from cdred.hub.client import check_login, list_remote, upload
from cdred.hub.demos import fetch_demos
from cdred.hub.manifest import MANIFEST, hash_file, list_files
from cdred.hub.pull import pull
from cdred.hub.push import push
from cdred.resolve import resolve_demos
from cdred.run_folder import check_same_demos, record_demos
from runs import run_config

SILENT = {"log": lambda _: None}


def test_run_is_pushed_to_a_private_repository_and_pulled(reference_run, hub, tmp_path):
    messages = []
    url = push(reference_run, "hf://me/runs/point", log=messages.append)
    assert url.startswith(f"{hub.url}/models/me/runs/commit/")
    assert hub.created == [{"organization": "me", "name": "runs", "visibility": "private", "type": "model"}]
    assert messages[-1] == "uploading to hf://me/runs/point; the repository is made private if it does not exist yet"
    files = hub.repos["models/me/runs"]["main"]
    assert all(name.startswith("point/") for name in files)
    assert b"cdred pull hf://me/runs/point runs/pulled" in files["point/README.md"]
    messages = []
    pulled = pull("hf://me/runs/point", tmp_path / "pulled", log=messages.append)
    assert f"downloaded into {tmp_path / 'cache'}" in messages[0]
    assert not any((pulled / name).is_symlink() for name in list_files(pulled))
    expected = {f"point/{name}" for name in list_files(pulled)} | {f"point/{MANIFEST}", "point/README.md"}
    assert set(files) == expected
    push(reference_run, str(tmp_path / "pushed"), **SILENT)
    assert pull(str(tmp_path / "pushed"), pulled, **SILENT) == pulled


def test_later_push_replaces_the_run_at_its_path_only(reference_run, hub, tmp_path):
    kept = {"checkpoints/000000001/state.safetensors": b"old", ".gitattributes": b"", "result.json": b"old"}
    hub.commit("models/me/runs", {"other/config.yaml": b"", **kept})
    push(reference_run, "hf://me/runs", private=False, **SILENT)
    files = hub.repos["models/me/runs"]["main"]
    assert "checkpoints/000000001/state.safetensors" not in files
    assert {"other/config.yaml", ".gitattributes"} < set(files)
    assert files["result.json"] != b"old"
    with pytest.raises(UserError, match=r"other/config\.yaml is not in manifest\.json"):
        pull("hf://me/runs", tmp_path / "pulled", **SILENT)


def test_branch_is_made_and_pulled_by_its_name(reference_run, hub, tmp_path):
    push(reference_run, "hf://me/runs", revision="v1", **SILENT)
    assert hub.repos["models/me/runs"]["main"] == {}
    pull("hf://me/runs@v1", tmp_path / "pulled", **SILENT)
    with pytest.raises(UserError, match=r"has no manifest\.json|no such file"):
        pull("hf://me/runs", tmp_path / "other", **SILENT)


def test_altered_file_and_foreign_names_of_a_repository_are_refused(reference_run, hub, tmp_path):
    push(reference_run, "hf://me/runs", **SILENT)
    files = dict(hub.repos["models/me/runs"]["main"])
    text = files["metrics.jsonl"]
    hub.commit("models/me/runs", files | {"metrics.jsonl": text[:-2] + b" \n"})
    with pytest.raises(UserError, match=r"metrics\.jsonl is not the file that was pushed"):
        pull("hf://me/runs", tmp_path / "pulled", **SILENT)
    hub.commit("models/me/runs", {name: files[name] for name in files if name != "metrics.jsonl"})
    with pytest.raises(UserError, match=r"metrics\.jsonl is missing"):
        pull("hf://me/runs", tmp_path / "pulled", **SILENT)
    hub.commit("models/me/runs", {"weights.bin": b"x" * 99})
    with pytest.raises(UserError, match=r"has no manifest\.json"):
        pull("hf://me/runs", tmp_path / "pulled", **SILENT)
    assert not (tmp_path / "pulled").exists()
    assert not list((tmp_path / "cache").rglob("weights.bin"))


@pytest.mark.parametrize(
    ("refused", "message"),
    [
        ((401, "GatedRepo"), "access has to be granted first: .*hf auth login"),
        ((404, "RepoNotFound"), "no such repository, or this login may not read it.*HF_TOKEN"),
        ((403, ""), "The token has no access: log in with"),
        ((400, ""), "the hub refused the request"),
    ],
)
def test_refusal_says_what_to_do(refused, message, hub, tmp_path):
    hub.refused = refused
    address = parse_hub_address("hf://me/runs")
    for call in (
        lambda: list_remote(address),
        lambda: upload(tmp_path, address, private=True, replaced=[], message="test"),
    ):
        with pytest.raises(UserError, match=rf"(?s)^hf://me/runs: .*{message}"):
            call()


def test_what_is_not_in_the_repository_is_named(hub):
    hub.commit("datasets/me/demos", {"a.npz": b"x"})
    with pytest.raises(UserError, match="no branch, tag or commit v9"):
        list_remote(parse_hub_address("hf://datasets/me/demos@v9"))
    with pytest.raises(UserError, match="no such file or folder in the repository"):
        list_remote(parse_hub_address("hf://datasets/me/demos/b.npz"))


def test_missing_token_is_reported_before_anything_is_copied(reference_run, hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(UserError, match=r"writing needs a token .*hf auth login"):
        push(reference_run, "hf://me/runs", **SILENT)
    assert hub.repos == {}


def test_missing_package_is_named_with_its_extra(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "huggingface_hub"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for call in (check_login, list_remote):
        with pytest.raises(UserError, match=r"huggingface_hub, which is not installed: pip install 'cdred\[hub\]'"):
            call(parse_hub_address("hf://me/runs"))


@pytest.fixture(scope="module")
def demo_files(tmp_path_factory):
    """Bytes of two files of demonstrations of the same task."""
    folder = tmp_path_factory.mktemp("demos")
    for num in (2, 3):
        save_npz(collect_scripted("probe/point", num), folder / f"{num}.npz")
    return [(folder / f"{num}.npz").read_bytes() for num in (2, 3)]


def resolve(address, messages=None):
    log = [].append if messages is None else messages.append
    return resolve_demos(run_config("out", demos=address), get_env_spec("probe/point"), log)


@pytest.mark.parametrize("address", ["hf://datasets/me/demos/point/a.npz", "hf://datasets/me/demos@main/point/a.npz"])
def test_demonstrations_are_downloaded_with_their_commit_in_the_provenance(address, demo_files, hub, tmp_path):
    commit = hub.commit("datasets/me/demos", {"point/a.npz": demo_files[0], "large.bin": b"x" * 1000})
    messages = []
    demos = resolve(address, messages)
    assert len(demos) == 2
    cached = next((tmp_path / "cache").rglob("a.npz"))
    expected = f"hf://datasets/me/demos/point/a.npz@{commit}"
    origin = {"address": expected, "commit": commit, "sha256": hash_file(cached)}
    assert demos.provenance["origin"] == origin
    size = f"{len(demo_files[0]):,} bytes"
    assert f"{expected}, 1 file, of which {size} are downloaded into {tmp_path / 'cache'}" in messages[0]
    assert not list((tmp_path / "cache").rglob("large.bin"))
    again = []
    resolve(address, again)
    assert "of which 0 bytes are downloaded" in again[0]


def test_folder_in_a_repository_is_read_through_the_links_of_the_cache(demo_files, hub, tmp_path):
    from cdred.data.formats.minari import save_minari

    (tmp_path / "a.npz").write_bytes(demo_files[0])
    save_minari(cdred.load_demos(tmp_path / "a.npz"), tmp_path / "minari")
    files = {
        f"sets/point/{name}": (tmp_path / "minari" / name).read_bytes() for name in list_files(tmp_path / "minari")
    }
    hub.commit("datasets/me/demos", files)
    demos = resolve("hf://datasets/me/demos/sets/point")
    np.testing.assert_array_equal(demos[1].obs, cdred.load_demos(tmp_path / "a.npz")[1].obs)


def test_moved_branch_with_other_demonstrations_is_refused_on_resuming(demo_files, hub, tmp_path):
    address, run = "hf://datasets/me/demos/a.npz", tmp_path / "run"
    hub.commit("datasets/me/demos", {"a.npz": demo_files[0]})
    run.mkdir()
    record_demos(run, resolve(address), save=False)
    (run / "result.json").write_text("{}")
    # Another commit with the same file is the same.
    hub.commit("datasets/me/demos", {"a.npz": demo_files[0], "README.md": b"new"})
    check_same_demos(run, resolve(address))
    hub.commit("datasets/me/demos", {"a.npz": demo_files[1]})
    with pytest.raises(UserError, match="holds a run with other demonstrations"):
        check_same_demos(run, resolve(address))


def test_cached_demonstrations_are_read_offline_and_others_are_an_error(demo_files, hub):
    commit = hub.commit("datasets/me/demos", {"a.npz": demo_files[0], "b.npz": demo_files[1]})
    resolve("hf://datasets/me/demos/a.npz")
    hub.close()
    messages = []
    demos = resolve("hf://datasets/me/demos/a.npz", messages)
    assert len(demos) == 2
    assert demos.provenance["origin"]["commit"] == commit
    assert "the hub cannot be reached" in messages[0]
    for missing in ("hf://datasets/me/demos/b.npz", "hf://datasets/me/others"):
        with pytest.raises(UserError, match="the hub cannot be reached"):
            fetch_demos(missing, lambda _: None)
