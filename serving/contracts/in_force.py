"""Is what was meant in force? Asked when a server starts; what is not stops it.

`hmas serve` passes what it meant in HMAS_SETTINGS. The engine core and each API server compare
it with what vLLM gave them, and each API server asks every engine core for its settings.
"""

import hmac
import json
import os
from argparse import Namespace

from serving.contracts import ContractError, contract_changes
from serving.contracts.settings import EngineSettings, read_settings

MEANT = "HMAS_SETTINGS"
GATEWAY = "serving.plugin.gateway.GatewayMiddleware"


def middleware_of(settings: EngineSettings) -> list[str]:
    """The middleware that these settings need on vLLM's command line."""
    return [GATEWAY] * (settings.gateway != "off")


def settings_in_force(additional_config: object) -> EngineSettings:
    """The settings that vLLM holds.

    Raises:
        ContractError: they do not fit, or are not those that `hmas serve` meant.
    """
    held = read_settings(additional_config)
    if meant := os.environ.get(MEANT):
        wanted = read_settings({"hmas": json.loads(meant)})
        for key in EngineSettings.model_fields:
            if key == "contract" and (lost := contract_changes(wanted.contract, held.contract)):
                raise ContractError(
                    "`hmas serve` was told another contract than vLLM holds "
                    f"({'; '.join(lost)[:200]}): something replaced --additional-config"
                )
            if getattr(held, key) != getattr(wanted, key):
                raise ContractError(
                    f"`hmas serve` was told hmas.{key}={getattr(wanted, key)!r}, but vLLM holds "
                    f"{getattr(held, key)!r}: an argument or a file replaced --additional-config"
                )
    return held


def check_api_server(args: Namespace) -> EngineSettings:
    """The settings of an API server that can keep them.

    Args:
        args: vLLM's.

    Raises:
        ContractError: middleware or a token is missing.
    """
    settings = settings_in_force(getattr(args, "additional_config", None))
    loaded = getattr(args, "middleware", None) or []
    for name in middleware_of(settings):
        if name not in loaded:
            raise ContractError(
                f"the settings need --middleware {name}, which vLLM did not get: start it with "
                "`hmas serve`, or name it"
            )
    check_tokens(settings)
    return settings


def check_tokens(settings: EngineSettings) -> None:
    """Make sure that the environment has the tokens that the settings need.

    Raises:
        ContractError: one is missing.
    """
    gateway = f"hmas.gateway={settings.gateway!r}"
    needed = [(gateway, "HMAS_TOKEN")] * (settings.gateway != "off")
    needed += [(gateway, "HMAS_GATEWAY_TOKEN")] * (settings.gateway == "token")
    needed += [("an API key in the contract", "HMAS_TOKEN")] * settings.contract.has_keys
    for what, variable in needed:
        if not os.environ.get(variable):
            raise ContractError(
                f"{what} needs {variable} in vLLM's environment: set it there"
            )


def fingerprint(settings: EngineSettings) -> str:
    """What two processes of one server must agree on: the settings, and HMAS_TOKEN under them."""
    key = os.environ.get("HMAS_TOKEN", "").encode()
    text = json.dumps(settings.model_dump(mode="json"), sort_keys=True)
    return hmac.digest(key, text.encode(), "sha256").hex()
