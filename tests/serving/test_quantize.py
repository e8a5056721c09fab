"""Quantized weights are near the original's, and an engine can read what they are. Runs in the engines' environment."""

import json
import subprocess
import textwrap

import pytest

from serving import environment, models
from serving.errors import ModelError

pytestmark = pytest.mark.vllm


@pytest.fixture(scope="session")
def python():
    """The engines' python: torch lives there alone."""
    return environment.install(environment.cache_dir())


def inside(python, code: str) -> str:
    """Run a test's body under the engines' python; its asserts are ours."""
    program = f"import sys; sys.path.insert(0, {str(environment.ROOT)!r})\n{textwrap.dedent(code)}"
    answer = subprocess.run([python, "-P", "-c", program], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def test_every_weight_is_within_half_a_step_of_the_original(python):
    """The law of symmetric rounding, for channels of any size, zeros included; and again after a second rounding."""
    inside(
        python,
        """
        import torch
        from serving.quantize import dequantize, quantize_tensors, quantize_weight
        for seed in range(50):
            chance = torch.Generator().manual_seed(seed)
            spread = 10 ** torch.randint(-4, 4, (16, 1), generator=chance).float()
            weight = torch.randn(16, 32, generator=chance) * spread
            weight[seed % 16] = 0
            steps, scales = quantize_weight(weight)
            assert steps.dtype == torch.int8 and scales.shape == (16, 1)
            assert ((steps.float() * scales - weight).abs() <= scales * 0.5001).all()
            name = "model.layers.0.mlp.up_proj.weight"
            once = dequantize(quantize_tensors({name: weight}))[name]
            twice = dequantize(quantize_tensors({name: once}))[name]
            assert torch.allclose(once, twice, rtol=1e-5)
        """,
    )


def test_activations_are_rounded_per_token(python):
    """The rounding that the table imitates: 255 steps of each token's own largest value."""
    inside(
        python,
        """
        import torch
        from serving.perplexity import round_per_token
        x = torch.randn(3, 5, 64, generator=torch.Generator().manual_seed(1)) * 7
        step = x.abs().amax(-1, keepdim=True) / 127
        rounded = round_per_token(x)
        assert ((rounded - x).abs() <= step * 0.5001).all()
        assert (rounded - x).abs().max() > 0
        assert torch.equal(round_per_token(torch.zeros(2, 4)), torch.zeros(2, 4))
        """,
    )


def test_text_is_read_in_windows_and_mixed_by_the_stated_share(python):
    """Windows hold length + 1 tokens of the text; after n rows, n x share are general; the seed decides all."""
    inside(
        python,
        """
        import itertools, torch
        from serving.adapt import mixed, windows
        tokens = torch.arange(1000)
        first = list(itertools.islice(windows(tokens, 16, 3), 130))
        assert all(len(w) == 17 and torch.equal(w, torch.arange(w[0], w[0] + 17)) for w in first)
        again = list(itertools.islice(windows(tokens, 16, 3), 130))
        assert all(torch.equal(a, b) for a, b in zip(first, again))
        for share in (0.0, 0.3, 0.7, 1.0):
            rows = list(itertools.islice(mixed(itertools.repeat("g"), itertools.repeat("d"), share), 100))
            assert abs(rows.count("g") - 100 * share) <= 1, share
        """,
    )


def test_a_quantized_copy_describes_itself_and_keeps_its_tokenizer(python, tmp_path):
    """config.json says compressed-tensors W8A8, weights are bytes, everything else went along."""
    base = models.make_models(environment.cache_dir()) / "base"
    models.quantize(base, tmp_path / "int8", environment.cache_dir())
    config = json.loads((tmp_path / "int8" / "config.json").read_text())["quantization_config"]
    group = config["config_groups"]["group_0"]
    assert config["quant_method"] == "compressed-tensors"
    assert (group["weights"]["strategy"], group["input_activations"]["strategy"]) == ("channel", "token")
    assert (tmp_path / "int8" / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (tmp_path / "int8", base)]
    assert sizes[0] < 0.75 * sizes[1]


def test_what_cannot_be_quantized_is_one_line(python, tmp_path):
    """No checkpoint, no weights, quantized before: each with its mend."""
    cache = environment.cache_dir()
    with pytest.raises(ModelError, match=r"no model in .*give a checkpoint's folder"):
        models.quantize(tmp_path, tmp_path / "out", cache)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"no weights in .*give a checkpoint's folder"):
        models.quantize(tmp_path, tmp_path / "out", cache)
    (tmp_path / "config.json").write_text('{"quantization_config": {}}')
    with pytest.raises(ModelError, match="is quantized already"):
        models.quantize(tmp_path, tmp_path / "out", cache)


def test_a_users_own_text_adapts_a_checkpoint(python, tmp_path):
    """A few steps on one's own JSON lines give a checkpoint of the same kind, and say what they did."""
    base = models.make_models(environment.cache_dir()) / "base"
    for name in ("domain", "general"):
        lines = [json.dumps({"text": f"The {name} text number {i} says this and that. " * 40}) for i in range(10)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    domain, general, out = tmp_path / "domain.jsonl", tmp_path / "general.jsonl", tmp_path / "out"
    models.adapt(base, domain, general, out, share=0.5, steps=3, cache=environment.cache_dir())
    trained = json.loads((out / "training.json").read_text())
    assert trained["tokens"] == 3 * 8 * 256
    assert (out / "config.json").exists()
    assert (out / "chat_template.jinja").read_bytes() == (base / "chat_template.jinja").read_bytes()


def test_text_that_is_not_json_lines_is_one_line(python, tmp_path):
    """The form is shown."""
    base = models.make_models(environment.cache_dir()) / "base"
    wrong = tmp_path / "wrong.jsonl"
    wrong.write_text("hello")
    with pytest.raises(ModelError, match='is not JSON lines with a "text" each'):
        models.adapt(base, wrong, wrong, tmp_path / "out", share=0.5, steps=3, cache=environment.cache_dir())
