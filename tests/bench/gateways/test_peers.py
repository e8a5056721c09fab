from __future__ import annotations

import json
from pathlib import Path

import pytest

import bench
from bench.errors import BenchError
from bench.gateways.peers import Peer, Places, chosen, filled, read_peers
from bench.gateways.running import installed

OURS = Path(bench.__file__).parent / "peers.json"


def test_our_list_names_our_gateway_and_both_references():
    """A table without nginx or the bare engines has no measure."""
    assert {"linnet", "nginx", "direct"} <= {peer.name for peer in read_peers(OURS)}


def test_every_template_of_our_list_is_there():
    """A peer is not found to lack its configuration halfway through a run."""
    assert [name for peer in read_peers(OURS) for name in peer.files if not (OURS.parent / name).exists()] == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "mend the list"),
        ("[]", "mend the list"),
        ('{"peers": [{"about": "nameless"}]}', "peers.0.name: "),
        ('{"peers": [{"name": "x", "start_s": "soon"}]}', "peers.0.start_s: "),
    ],
)
def test_a_wrong_list_is_told_in_one_line(tmp_path, text, told):
    """It says which file, and what to mend."""
    file = tmp_path / "peers.json"
    file.write_text(text)
    with pytest.raises(BenchError, match=told) as trouble:
        read_peers(file)
    assert str(file) in str(trouble.value)
    assert "\n" not in str(trouble.value)


def test_a_field_of_another_reader_is_let_pass(tmp_path):
    """The list is in a format that others read too."""
    file = tmp_path / "peers.json"
    file.write_text(json.dumps({"about": "x", "peers": [{"name": "a", "theirs": 1}]}))
    assert read_peers(file) == (Peer("a"),)


def test_an_unknown_peer_is_told_beside_those_there_are():
    """A typing error does not become an empty table."""
    with pytest.raises(BenchError, match="no peer named c; there are a, b"):
        chosen((Peer("a"), Peer("b")), "a,c")


def test_all_are_chosen_where_none_is_named():
    """And otherwise those named, in the list's order."""
    peers = (Peer("a"), Peer("b"))
    assert chosen(peers, "") == peers
    assert chosen(peers, "b,a") == peers


def test_words_between_at_signs_are_filled_in():
    """Also several in one word."""
    assert filled("http://127.0.0.1:@up_a@/@dir@", {"up_a": 81, "dir": "d"}) == "http://127.0.0.1:81/d"


def test_a_peer_is_installed_if_its_program_is_there(tmp_path):
    """The one without a command needs none."""
    places = Places(tmp_path, tmp_path)
    assert installed(Peer("direct"), places)
    assert installed(Peer("a", command=("sh",)), places)
    assert not installed(Peer("b", command=("@peers@/b",)), places)
    (tmp_path / "b").touch(mode=0o755)
    assert installed(Peer("b", command=("@peers@/b",)), places)
