"""The demo's configurations: what each node is told must be what `offhook serve` takes."""

from pathlib import Path

import pytest

from offhook.certificates import development_certificate
from offhook.cli.demo.stage import Stage, set_up
from offhook.config import load


@pytest.fixture
def app_file(tmp_path: Path) -> Path:
    return tmp_path / "app.py"


def test_the_embedded_voice_needs_one_node(tmp_path: Path, app_file: Path) -> None:
    stage = set_up(tmp_path / "demo", "tls", app_file)
    config = load(stage.node.config)
    assert stage.upstreams == ()
    assert config.engine.kind == "local"
    assert config.engine.model_dir == str(stage.models)
    assert not config.upstreams
    assert config.projects[0].api_keys == (stage.node.api_key,)
    assert config.projects[0].webhooks[0].url == f"http://127.0.0.1:{stage.app_port}/"
    assert stage.sip_uri() == f"sip:proj_demo@127.0.0.1:{stage.tls_port};transport=tls"
    assert config.sip.listen[2] == f"tls:127.0.0.1:{stage.tls_port}"


def test_a_voice_that_is_elsewhere_is_asked_over_tls_with_its_key(tmp_path: Path, app_file: Path) -> None:
    stage = set_up(tmp_path / "demo", "tls", app_file, ("voice", "spare"))
    config = load(stage.node.config)
    assert config.models == {"*": ("voice", "spare")}
    assert [site.name for site in stage.upstreams] == ["voice", "spare"]
    for site in stage.upstreams:
        theirs = load(site.config)
        assert theirs.sip.listen == (), "it takes no calls"
        assert theirs.engine.kind == "local"
        development_certificate(theirs.server.data_dir / "tls", ("127.0.0.1",))  # as it does when it starts
        assert config.upstreams[site.name].ca_file == str(site.ca)
        upstream = config.upstreams[site.name].to_upstream(site.name)
        assert upstream.url == f"https://{theirs.server.https}/v1"
        assert (upstream.key,) == theirs.projects[0].api_keys
        assert not (site.data_dir / "key").stat().st_mode & 0o077
    assert not stage.upstreams[0].data_dir.samefile(stage.upstreams[1].data_dir)


def test_no_node_has_anothers_key_or_port(tmp_path: Path, app_file: Path) -> None:
    stage = set_up(tmp_path / "demo", "udp", app_file, ("voice", "spare"))
    nodes = (stage.node, *stage.upstreams)
    assert len({site.api_key for site in nodes}) == 3
    assert len({port for site in nodes for port in (site.http_port, site.https_port)}) == 6


def test_the_next_demo_finds_nothing_of_the_last_one_but_its_models(tmp_path: Path, app_file: Path) -> None:
    folder = tmp_path / "demo"
    before = set_up(folder, "tls", app_file, ("voice", "spare"))
    _leave_something(before)
    after = set_up(folder, "tls", app_file)
    assert (after.models / "model.bin").is_file()
    assert not after.recording.exists()
    assert list(after.logs.iterdir()) == []
    assert not before.upstreams[0].data_dir.exists()
    assert not before.upstreams[0].config.exists()


def _leave_something(stage: Stage) -> None:
    stage.models.mkdir()
    (stage.models / "model.bin").touch()
    (stage.logs / "server.log").touch()
    stage.recording.touch()
