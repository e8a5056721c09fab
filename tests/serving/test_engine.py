"""An engine is checked before it starts, ready when it completes, warmed before it counts."""

import json
import socket

import pytest

from serving import engine
from serving.errors import EngineError, ModelError
from serving.launch import EngineSettings
from tests.support.engines import free_port


@pytest.fixture
def checkpoint(tmp_path):
    """A checkpoint of one tensor."""
    config = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 128, "head_dim": 64}
    header = json.dumps({"w": {"dtype": "BF16", "shape": [4], "data_offsets": [0, 8]}}).encode()
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    return tmp_path


def test_a_taken_port_is_said_before_anything_starts(checkpoint):
    """One line, in no time, with the mend."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        settings = EngineSettings("baseline", checkpoint, "demo", other.getsockname()[1])
        with pytest.raises(EngineError, match=r"baseline cannot listen on .*in use; stop what listens there"):
            engine.engine_child(settings, checkpoint / "python", checkpoint)


def test_a_missing_model_is_said_before_anything_starts(tmp_path):
    """One line with the mend."""
    with pytest.raises(ModelError, match=r"config\.json is missing"):
        engine.engine_child(EngineSettings("b", tmp_path / "no", "demo", 1), tmp_path, tmp_path)


def test_a_child_carries_what_the_settings_say(checkpoint):
    """The core, the log, and the checks."""
    settings = EngineSettings("baseline", checkpoint, "demo", free_port(), core=1)
    spec = engine.engine_child(settings, checkpoint / "bin" / "python", checkpoint, restart=True)
    assert (spec.name, spec.core, spec.restart) == ("baseline", 1, True)
    assert spec.log_path == checkpoint / "baseline.log"
    assert spec.ready is not None


def test_the_plan_reads_the_checkpoint_itself(checkpoint):
    """Weights from the header, KV cache from the settings."""
    made = engine.read_plan(EngineSettings("b", checkpoint, "demo", 1, kv_cache_bytes=1 << 20))
    assert made.weights_bytes == 8
    assert made.kv_bytes_per_token == 2 * 2 * 64 * 2


async def test_an_engine_that_answers_is_ready_and_can_be_warmed(simulated):
    """A one-token completion is the proof."""
    one = simulated()
    assert await engine.listens("127.0.0.1", int(one.url.rsplit(":", 1)[1]))
    assert await engine.answers(f"{one.url}/health")
    assert await engine.completes(one.url, one.model)
    await engine.warm(one.url, one.model)


async def test_nobody_there_is_not_ready():
    """Refused connections are an answer: no."""
    port = free_port()
    assert not await engine.listens("127.0.0.1", port)
    assert not await engine.answers(f"http://127.0.0.1:{port}/health")
    assert not await engine.completes(f"http://127.0.0.1:{port}", "demo")


async def test_an_engine_that_cannot_be_warmed_is_one_line():
    """Nobody there, or an error: said with the mend."""
    with pytest.raises(EngineError, match=r"the engine at .* did not warm up: .*; read its log"):
        await engine.warm(f"http://127.0.0.1:{free_port()}", "demo")
