"""Tables within tables (`[agents.model]`): read, overridden, printed, and named when wrong."""

import tomllib

import pytest

from hmas_agents.config import Config, ConfigError, load_config
from hmas_agents.config_text import render_resolved

CHANGES = {"agents.enabled": ["admission", "batching"], "agents.model.replaces": "admission",
           "agents.model.fresh_s": 3.5}  # fmt: skip


def test_what_is_overridden_is_printed_and_reads_back_equal():
    config = load_config(None, CHANGES)
    assert (config.agents.model.replaces, config.agents.model.fresh_s) == ("admission", 3.5)
    text = render_resolved(config)
    assert text.index("[agents]\n") < text.index("[agents.model]\n")
    assert Config.model_validate(tomllib.loads(text)) == config


@pytest.mark.parametrize(("text", "expected"), [
    ('[agents]\nmin_gap_s = 1\n[agents.model]\nreplaces = "x"\n',
     ":4: agents.model.replaces: Input should be '', 'tenant_shares'"),
    ("[agents.model]\nfresh = 1\n", ":2: agents.model.fresh: unknown key; did you mean 'fresh_s'?"),
    ("[agents]\n[agents.model]\nfresh_s = 0\n", ":3: agents.model.fresh_s: "),
    ('[agents]\nenabled = ["admission"]\n[agents.model]\nreplaces = "batching"\n',
     ":1: agents: model.replaces 'batching' is not in enabled"),
    ('[agents]\n\nenabled = ["luck"]\n', ":3: agents.enabled: "),
])  # fmt: skip
def test_errors_name_the_inner_key_and_its_line(tmp_path, text, expected):
    path = tmp_path / "hmas.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(caught.value).startswith(f"{path}{expected}")


def test_a_wrong_override_of_an_inner_key_is_named():
    with pytest.raises(ConfigError, match=r"^override agents\.model\.fresh_s: "):
        load_config(None, {"agents.model.fresh_s": -1.0})
    with pytest.raises(ConfigError, match=r"^override agents\.min_gap_s\.x: not of the form"):
        load_config(None, {"agents.min_gap_s": 1.0, "agents.min_gap_s.x": 2.0})
