"""The way to a device: its entry and ssh_config together."""

import shutil
from pathlib import Path

import pytest

import edge
from edge.ssh_config import way_to

pytestmark = pytest.mark.skipif(shutil.which("ssh") is None, reason="OpenSSH's client is not installed")


@pytest.fixture
def way(tmp_path):
    """The way to a device with such an ssh_config and such an entry."""
    (tmp_path / "known").write_text("")

    def find(text: str, **entry: object) -> list:
        (tmp_path / "config").write_text(text)
        entry = {"transport": "ssh", "host": "dev", "known_hosts": str(tmp_path / "known")} | entry
        return way_to(edge.Device.from_config("thing", {"ssh_config": str(tmp_path / "config")} | entry))

    return find


def addresses(hops) -> list[str]:
    return [hop.address for hop in hops]


def test_an_alias_is_looked_up_and_files_that_are_included_are_read(way, tmp_path):
    (tmp_path / "more").write_text("Host dev\n HostName 10.0.0.7\n Port 2222\n User nv\n")
    assert addresses(way(f"Include {tmp_path / 'more'}\n")) == ["nv@10.0.0.7:2222"]


def test_the_entry_counts_more_than_ssh_config(way):
    (hop,) = way("Host dev\n HostName 10.0.0.7\n Port 2222\n User nv\n", port=22, user="me")
    assert hop.address == "me@10.0.0.7:22"


def test_a_chain_of_gateways_is_followed_to_its_beginning(way):
    config = "Host dev\n ProxyJump inner,u@last:2200\nHost inner\n HostName in\n ProxyJump outer\nHost *\n User me\n"
    assert addresses(way(config)) == ["me@outer:22", "me@in:22", "u@last:2200", "me@dev:22"]


def test_gateways_of_the_entry_replace_a_proxy_jump(way):
    hops = way("Host dev\n ProxyJump other\nHost gw\n HostName 1.2.3.4\nHost *\n User me\n", gateways=["gw", "u@b:23"])
    assert addresses(hops) == ["me@1.2.3.4:22", "u@b:23", "me@dev:22"]


def test_each_hop_has_the_keys_and_known_hosts_that_ssh_config_names_for_it(way, tmp_path):
    for name in ("k1", "k2", "h1", "h2"):
        (tmp_path / name).write_text("")
    config = "".join(
        f"Host {host}\n IdentityFile {tmp_path}/k{n}\n IdentitiesOnly yes\n UserKnownHostsFile {tmp_path}/h{n}\n"
        for n, host in ((1, "gw"), (2, "dev"))
    )
    for hop, number in zip(way(config, gateways=["gw"], known_hosts=None), "12", strict=True):
        assert hop.keys == (tmp_path / f"k{number}",)
        assert not hop.agent
        assert tmp_path / f"h{number}" in hop.known_hosts


def test_the_entrys_key_is_the_only_one_where_it_is_given(way, tmp_path):
    (tmp_path / "key").write_text("")
    (hop,) = way("", identity_file=str(tmp_path / "key"))
    assert hop.keys == (tmp_path / "key",) and not hop.agent


def test_without_an_ssh_config_the_entry_is_all_there_is(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "expanduser", lambda path: tmp_path / "home" / path.name)
    (tmp_path / "home").mkdir()
    (tmp_path / "home/known_hosts").write_text("")
    (hop,) = way_to(edge.Device.from_config("thing", {"transport": "ssh", "host": "h"}))
    assert (hop.host, hop.port, hop.user, hop.agent) == ("h", 22, None, True)
    assert hop.known_hosts == (tmp_path / "home/known_hosts",)


@pytest.mark.parametrize(
    ("config", "entry", "words"),
    [
        ("Host dev\n ProxyCommand nc %h %p\n", {}, "ProxyCommand for 'dev', which is not supported. Use ProxyJump"),
        ("Host a\n ProxyJump b\nHost b\n ProxyJump a\nHost dev\n ProxyJump a\n", {}, "more than 16 gateways"),
        ("Nonsense yes\n", {}, "cannot be used: .*Nonsense|cannot be used: .*nonsense"),
        ("", {"ssh_config": "/nowhere/config"}, "/nowhere/config is missing. Set `ssh_config`"),
    ],
)
def test_what_cannot_be_followed_is_an_error_that_names_device_and_file(way, config, entry, words):
    with pytest.raises(edge.DeviceUnreachable, match=f"device 'thing': .*({words})"):
        way(config, **entry)


def test_a_host_that_looks_like_an_option_of_ssh_is_none(way):
    with pytest.raises(edge.DeviceUnreachable, match="cannot be used"):
        way("", host="-oProxyCommand=touch /tmp/owned")
