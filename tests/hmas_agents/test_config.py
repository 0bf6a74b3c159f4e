"""The configuration: defaults, files, overrides, and errors that say where."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmas_agents.config import Config, ConfigError, default_config_path, load_config
from hmas_agents.config_text import render_resolved

ROOT = Path(__file__).parents[2]


@pytest.fixture
def write(tmp_path):
    def _write(text):
        path = tmp_path / "hmas.toml"
        path.write_text(text)
        return path

    return _write


def test_the_example_file_is_the_rendered_defaults():
    assert (ROOT / "hmas.toml").read_text() == render_resolved(Config())


def test_every_key_has_a_description():
    for section, field in Config.model_fields.items():
        assert field.description, section
        for key, item in type(getattr(Config(), section)).model_fields.items():
            assert item.description, f"{section}.{key}"


def test_without_a_file_the_defaults(monkeypatch, write):
    monkeypatch.chdir(write('[control]\nmode = "act"\n').parent)
    assert load_config(None) == Config()
    assert default_config_path() == Path("hmas.toml")


def test_overrides_win_over_the_file_and_none_is_no_override(write):
    path = write('[control]\nmode = "act"\nttl_s = 30.0\n')
    config = load_config(
        path, {"control.ttl_s": 40, "control.mode": None, "engine.url": "http://x"}
    )
    assert (config.control.mode, config.control.ttl_s) == ("act", 40)
    assert config.engine.url == "http://x"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            '[control]\n\nmode = "go"\n',
            ":3: control.mode: Input should be 'advise' or 'act' (got 'go')",
        ),
        ('control.mode = "go"\n', ":1: control.mode: "),
        ('[model]\nmode = 1\n[control]\nmode = "go"\n', ":4: control.mode: "),
        ("[twin]\nbudget = 3\n", ":2: twin.budget: unknown key; did you mean 'budget_s'?"),
        ("[twins]\n", ":1: twins: unknown key; did you mean 'twin'? there are engine, control"),
        ("[twin]\nhorizon_s = nan\n", ":2: twin.horizon_s: "),
        ("[ledger]\nmax_decisions = 0\n", ":2: ledger.max_decisions: "),
        ('[control]\nstart_policy = "sjf"\n', ":1: control: start_policy 'sjf' is not in"),
        ('[control]\nstart_policy = "lifo"\n', ":1: control: policy 'lifo' does not exist; there"),
        ('[control]\nstart_policy = "edf:kappa=x"\n', "'kappa=x' is not of the form parameter="),
        ('[control]\nstart_rules = ["fast"]\n', "start_rules: 'fast' does not exist; there are"),
        (
            '[control]\nallow_policies = ["lifo"]\n',
            "allow_policies: 'lifo' does not exist; there are",
        ),
        ("[control]\nttl_s = 1.0\n", "ttl_s 1 must exceed short_tick_s 2"),
        ("[control]\nmode = \n", ":2: not TOML: "),
        ("twin = 3\n", ":1: twin: "),
    ],
)
def test_errors_name_file_line_and_key(write, text, expected):
    path = write(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(caught.value).startswith(f"{path}:")
    assert expected in str(caught.value)


def test_every_wrong_key_is_named_at_once(write):
    with pytest.raises(ConfigError) as caught:
        load_config(write('[control]\nmode = "go"\n[twin]\nx = 1\n'))
    assert [line.split(": ")[1] for line in str(caught.value).splitlines()] == [
        "control.mode",
        "twin.x",
    ]


def test_a_wrong_override_is_named_as_one(write):
    with pytest.raises(ConfigError, match=r"^override control\.mode: "):
        load_config(write("[control]\nttl_s = 30.0\n"), {"control.mode": "go"})
    with pytest.raises(ConfigError, match=r"^override mode: not of the form section\.key"):
        load_config(None, {"mode": "act"})


def test_an_unreadable_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"missing\.toml: cannot be read: No such file"):
        load_config(tmp_path / "missing.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"binary\.toml: cannot be read"):
        load_config(tmp_path / "binary.toml")


def test_overrides_do_not_change_the_callers_dictionary():
    overrides = {"control.mode": "act"}
    load_config(None, overrides)
    assert overrides == {"control.mode": "act"}


def test_what_is_sent_with_every_request_may_not_replace_what_hmas_sets(write):
    path = write("[model]\n[model.extra_body]\nmessages = []\n")
    with pytest.raises(ConfigError, match=r"model\.extra_body: 'messages' is set by H-MAS"):
        load_config(path)


# What TOML can hold of JSON: 64-bit integers, finite floats, no null.
JSON_KEY = st.text(st.characters(exclude_categories=["Cs"]))
JSON_VALUE = st.recursive(
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | JSON_KEY,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(JSON_KEY, inner, max_size=3),
    max_leaves=6,
)
JSON_TABLE = st.dictionaries(JSON_KEY.map(lambda key: f"x{key}"), JSON_VALUE, max_size=3)


@given(
    name=st.text(st.characters(exclude_categories=["Cs"])),
    timeout_s=st.floats(1e-6, 1e6),
    port=st.integers(0, 65_535),
    enabled=st.booleans(),
    extra=JSON_TABLE,
)
def test_what_is_rendered_reads_back_equal(name, timeout_s, port, enabled, extra):
    config = load_config(
        None,
        {
            "model.name": name,
            "model.timeout_s": timeout_s,
            "metrics.port": port,
            "twin.enabled": enabled,
            "model.extra_body": extra,
        },
    )
    assert Config.model_validate(tomllib.loads(render_resolved(config))) == config
