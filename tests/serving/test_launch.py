"""Settings become one command; what is served has one name."""

from dataclasses import replace
from pathlib import Path

import pytest

from serving import launch
from serving.errors import ModelError

PYTHON = Path("/env/bin/python")


@pytest.fixture
def settings(tmp_path):
    """An engine over a checkpoint of a few bytes."""
    for name, content in (("config.json", "{}"), ("model.safetensors", "weights"), ("tokenizer.json", "{}")):
        (tmp_path / name).write_text(content)
    return launch.EngineSettings("baseline", tmp_path, "demo", 8101, core=1)


def option(words, name):
    """Return the word after an option."""
    return words[words.index(name) + 1]


def test_the_command_serves_the_folder_under_its_name(settings):
    """What was set is what is said."""
    words = launch.argv(replace(settings, max_model_len=512, extra_args=("--enable-lora",)), PYTHON)
    assert words[:5] == (str(PYTHON), "-m", "vllm.entrypoints.cli.main", "serve", str(settings.model_dir))
    assert option(words, "--served-model-name") == "demo"
    assert option(words, "--port") == "8101"
    assert option(words, "--max-model-len") == "512"
    assert option(words, "--kv-cache-memory-bytes") == str(64 << 20)
    assert words[-1] == "--enable-lora"


def test_an_engine_is_offline_and_silent_about_itself():
    """No engine phones home, and its cache stays in its own environment."""
    variables = launch.variables(PYTHON)
    assert variables["HF_HUB_OFFLINE"] == "1"
    assert variables["VLLM_NO_USAGE_STATS"] == "1"
    assert variables["VLLM_CACHE_ROOT"] == "/env/vllm-cache"


def test_the_same_thing_elsewhere_has_the_same_digest(settings):
    """Port, core and names are not what is served."""
    elsewhere = replace(settings, name="other", port=1, core=None, served_model="x")
    assert launch.digest(settings) == launch.digest(elsewhere)
    assert launch.digest(settings).startswith("sha256:")


@pytest.mark.parametrize(
    "change", [{"dtype": "float32"}, {"max_num_seqs": 2}, {"kv_cache_bytes": 1}, {"extra_args": ("-x",)}]
)
def test_another_behaviour_is_another_digest(settings, change):
    """An engine short of KV memory is not the same candidate."""
    assert launch.digest(settings) != launch.digest(replace(settings, **change))


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "model.bin", "tokenizer.json", "merges.txt", "chat_template.jinja"]
)
def test_other_files_are_another_digest(settings, name):
    """Weights, configuration, tokenizer and template all count."""
    before = launch.digest(settings)
    (settings.model_dir / name).write_text("something else")
    assert before != launch.digest(settings)


def test_notes_in_the_folder_do_not_change_the_digest(settings):
    """How it was trained is not what it answers."""
    before = launch.digest(settings)
    (settings.model_dir / "training.json").write_text("{}")
    (settings.model_dir / "README.md").write_text("hello")
    assert before == launch.digest(settings)


def test_a_missing_model_folder_is_one_line_with_the_mend(settings, tmp_path):
    """No traceback, and what to do."""
    with pytest.raises(ModelError, match=r"no model in .*nowhere: config.json is missing; make the models"):
        launch.digest(replace(settings, model_dir=tmp_path / "nowhere"))
