"""The manifest of a pushed run, which may come from anybody."""

import json

import pytest

from cdred.errors import UserError
from cdred.hub.manifest import MANIFEST, compare_names, hash_files, list_files, read_manifest, write_manifest

# SHA-256 of the empty string, and of "abc" (FIPS 180-2, appendix B.1).
EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def write(folder, **files):
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return folder


def test_manifest_has_sizes_and_hashes_of_the_files_of_the_run(tmp_path):
    write(tmp_path / "r", config_yaml="abc", a__b="", README_md="card")
    written = write_manifest(tmp_path / "r", "1.0")
    assert written == {"a/b": (0, EMPTY), "config.yaml": (3, ABC)}
    assert read_manifest(tmp_path / "r" / MANIFEST, "r") == written


@pytest.mark.parametrize(
    "name",
    ["../x", "/etc/x", "a/../x", "a/./x", "a//x", "./x", "", ".", "a\\x", "a\x1bx", "README.md", "manifest.json"],
)
def test_name_outside_the_run_is_refused(name, tmp_path):
    entry = {"bytes": 3, "sha256": ABC}
    content = {"format": 1, "files": {"config.yaml": entry, name: entry}}
    (tmp_path / MANIFEST).write_text(json.dumps(content))
    with pytest.raises(UserError, match="not a path below the run's folder"):
        read_manifest(tmp_path / MANIFEST, "them")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
        ('{"format": 2, "files": {}}', "has format 2"),
        ('{"format": 1, "files": {}}', "names no config.yaml"),
        ('{"format": 1, "files": {"config.yaml": {"bytes": -1, "sha256": "ABC"}}}', "cannot be read"),
        ('{"format": 1, "files": {"config.yaml": {"bytes": 1.5, "sha256": "ABC"}}}', "cannot be read"),
        ('{"format": 1, "files": {"config.yaml": {"bytes": 1, "sha256": "short"}}}', "cannot be read"),
        ('{"format": 1, "files": {"config.yaml": {"bytes": 1}}}', "cannot be read"),
    ],
)
def test_damaged_manifest_is_refused(text, message, tmp_path):
    (tmp_path / MANIFEST).write_text(text.replace("ABC", ABC))
    with pytest.raises(UserError, match=message):
        read_manifest(tmp_path / MANIFEST, "them")


def test_first_difference_of_names_and_sizes_is_named(tmp_path):
    manifest = write_manifest(write(tmp_path / "r", config_yaml="abc"), "1.0")
    assert compare_names({"config.yaml": 3}, manifest) is None
    assert compare_names({"config.yaml": None}, manifest) is None
    assert compare_names({}, manifest) == "config.yaml is missing"
    assert compare_names({"config.yaml": 4}, manifest) == "config.yaml has 4 bytes, in manifest.json 3"
    assert compare_names({"config.yaml": 3, "x": 1}, manifest) == "x is not in manifest.json"


def test_links_are_refused_unless_they_point_into_the_cache(tmp_path):
    folder, blobs = write(tmp_path / "r", a="abc"), write(tmp_path / "blobs", x="abc")
    (folder / "link").symlink_to(blobs / "x")
    with pytest.raises(UserError, match="link is a link, which is not followed"):
        list_files(folder)
    assert list_files(folder, blobs) == {"a": 3, "link": 3}
    (folder / "link").unlink()
    (folder / "link").symlink_to(blobs)
    with pytest.raises(UserError, match="link is "):
        list_files(folder, blobs)


def test_hash_of_a_folder_depends_on_names_and_contents(tmp_path):
    hashes = {
        hash_files(write(tmp_path / str(i), **files))
        for i, files in enumerate([{"a": "abc"}, {"b": "abc"}, {"a": "abd"}, {"a": "abc", "b": ""}])
    }
    assert len(hashes) == 4
    assert hash_files(write(tmp_path / "again", a="abc")) == hash_files(tmp_path / "0")
    assert hash_files(tmp_path / "0" / "a") == ABC
