"""Addresses of repositories and of Minari's datasets."""

import pytest

from cdred.errors import UserError
from cdred.hub.address import HubAddress, parse_hub_address, parse_minari_id


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hf://me/runs", HubAddress("me/runs")),
        ("hf://models/me/runs/", HubAddress("me/runs")),
        ("hf://me/runs/a/b", HubAddress("me/runs", path="a/b")),
        ("hf://me/runs/a@v1", HubAddress("me/runs", path="a", revision="v1")),
        ("hf://me/runs@v1/a", HubAddress("me/runs", path="a", revision="v1")),
        ("hf://me/runs/a@refs/pr/1", HubAddress("me/runs", path="a", revision="refs/pr/1")),
        ("hf://datasets/me/d.2/x.npz", HubAddress("me/d.2", "dataset", "x.npz")),
    ],
)
def test_address_is_parsed_and_written_back(text, expected):
    assert parse_hub_address(text) == expected
    assert parse_hub_address(str(expected)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "hf://me",
        "hf://datasets/me",
        "hf://spaces/me/x",
        "hf:/me/runs",
        "https://huggingface.co/me/runs",
        "hf://me/runs/../../other",
        "hf://me/runs/a//b",
        "hf://../runs",
        "minari://D4RL/pen/human-v2",
    ],
)
def test_other_addresses_are_refused(text):
    with pytest.raises(UserError, match=r"is not the address|names the path"):
        parse_hub_address(text)


def test_two_revisions_are_refused_unless_they_agree():
    assert parse_hub_address("hf://me/runs@v1", "v1").revision == "v1"
    with pytest.raises(UserError, match="more than one revision, v1, v2"):
        parse_hub_address("hf://me/runs@v1", "v2")


@pytest.mark.parametrize("text", ["minari://pen/human", "minari://../x-v1", "minari://a//b-v1", "minari:///a-v1"])
def test_minari_id_needs_a_version_and_stays_in_its_folder(text):
    assert parse_minari_id("minari://D4RL/pen/human-v2") == "D4RL/pen/human-v2"
    with pytest.raises(UserError, match="is not a Minari dataset"):
        parse_minari_id(text)
