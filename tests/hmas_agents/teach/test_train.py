"""Does training lower the loss, and is the merged model the model with its adapter?"""

import json
import re

import pytest
import torch

from hmas_agents.intent.code import pattern
from hmas_agents.intent.endpoint import MAX_TOKENS
from hmas_agents.teach.adapter import CONFIG, WEIGHTS, TeachError, merge_adapter, save_adapter
from hmas_agents.teach.examples import Examples
from hmas_agents.teach.local import LocalModel
from hmas_agents.teach.phrasings import Phrasing
from hmas_agents.teach.train import load, train, with_adapter
from prompts.loader import load_prompt

pytest.importorskip("peft", reason="peft is not installed: pip install 'hmas-scheduler[teach]'")
FEW = [Phrasing("{T1} ahead", "weight T1 high"), Phrasing("hello", "ask")]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A Llama of random weights, with letters for tokens."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    letters = ["</s>", "<unk>", *map(chr, range(32, 127)), "\n"]
    words = models.WordLevel({letter: i for i, letter in enumerate(letters)}, unk_token="<unk>")
    tokenizer = Tokenizer(words)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    folder = tmp_path_factory.mktemp("base")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>").save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(letters), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True, eos_token_id=0,
        bos_token_id=None, initializer_range=0.3,
    )  # fmt: skip
    LlamaForCausalLM(config).to(torch.float32).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def taught(base):
    model, tokenizer = load(base)
    model = with_adapter(model, seed=0)
    losses = []
    train(model, tokenizer, Examples(FEW, 0), 40, lambda at: losses.append(at.loss))
    return model, tokenizer, losses


def test_the_loss_goes_down_and_only_the_adapter_learns(taught, base):
    model, _, losses = taught
    assert len(losses) == 40
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])
    before, _ = load(base)
    learnt = dict(model.get_base_model().named_parameters())
    for name, weight in before.named_parameters():
        same = learnt.get(name, learnt.get(name.replace(".weight", ".base_layer.weight")))
        assert same is not None, name
        assert torch.equal(weight, same), name


def test_the_merged_model_says_what_the_model_with_its_adapter_says(taught, base, tmp_path):
    model, tokenizer, _ = taught
    save_adapter(model, tmp_path / "adapter")
    merge_adapter(base, tmp_path / "adapter", tmp_path / "merged")
    merged, _ = load(tmp_path / "merged")
    tokens = tokenizer("acme ahead\n", return_tensors="pt").input_ids
    with torch.no_grad():
        wanted, plain = model(tokens).logits, load(base)[0](tokens).logits
        torch.testing.assert_close(merged(tokens).logits, wanted, atol=2e-2, rtol=2e-2)
        assert not torch.allclose(plain, wanted, atol=5e-2)  # the adapter does something


def test_what_it_writes_is_a_code_even_untaught(base):
    model, tokenizer = load(base)
    answer = LocalModel(model.eval(), tokenizer).complete("T1 ahead\n", pattern(["T1"]))
    assert answer.logprob is not None
    assert answer.logprob < 0
    assert re.fullmatch(pattern(["T1"]), answer.text) or answer.completion_tokens == MAX_TOKENS


def test_in_a_chat_it_writes_by_the_schema_even_untaught(base):
    model, tokenizer = load(base)
    tokenizer.chat_template = "{% for each in messages %}{{ each.content }}\n{% endfor %}"
    head = load_prompt("intent", "zero-shot").head
    schema = {"type": "object", "properties": {"kind": {"enum": ["weight", "floor"]}},
              "required": ["kind"], "additionalProperties": False}  # fmt: skip
    messages = [{"role": "user", "content": "acme ahead"}]
    answer = LocalModel(model.eval(), tokenizer).chat(messages, schema, head)
    assert json.loads(answer.text)["kind"] in {"weight", "floor"}
    assert answer.logprob is not None
    assert answer.logprob < 0


def test_an_adapter_of_another_model_is_refused(taught, base, tmp_path):
    from safetensors.torch import load_file, save_file

    save_adapter(taught[0], tmp_path / "adapter")
    weights = load_file(tmp_path / "adapter" / WEIGHTS)
    narrow = {name: each[:, :1].contiguous() for name, each in weights.items()}
    save_file(narrow, tmp_path / "adapter" / WEIGHTS)
    with pytest.raises(TeachError, match="is of another model"):
        merge_adapter(base, tmp_path / "adapter", tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_what_is_missing_or_there_already_is_said(base, tmp_path):
    with pytest.raises(TeachError, match="make model"):
        load(tmp_path)
    with pytest.raises(TeachError, match="nothing to merge"):
        merge_adapter(base, tmp_path, tmp_path / "merged")
    with pytest.raises(TeachError, match="exists"):
        merge_adapter(base, tmp_path, tmp_path)


def test_the_adapter_is_written_small_and_as_vllm_reads_it(taught, tmp_path):
    save_adapter(taught[0], tmp_path)
    config = json.loads((tmp_path / CONFIG).read_text())
    assert config["peft_type"] == "LORA"
    assert "/" not in config["base_model_name_or_path"]
    assert sorted(each.name for each in tmp_path.iterdir()) == [CONFIG, WEIGHTS]
