"""How does a KV connector answer in virtual time? vLLM's base class, with answers from the request.

A request says in its `kv_transfer_params` what another engine holds of it: `do_remote_prefill`
(all of the prompt, as on a decode node) or `remote_tokens`; after how many questions the
connector knows (`unknown_for`), and how many steps loading takes (`load_steps`, 0: at once).
"""

from typing import Any

from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorBase_V1,
    KVConnectorMetadata,
    SupportsHMA,
)


class RemoteKV(KVConnectorBase_V1, SupportsHMA):
    """The scheduler's half of a connector; nobody runs the worker's."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.asked: dict[str, int] = {}
        self._loading: dict[str, int] = {}

    def get_num_new_matched_tokens(self, request, num_computed_tokens):
        """Tokens that can be loaded, None while that is not known; and whether it takes steps."""
        params = request.kv_transfer_params or {}
        self.asked[request.request_id] = self.asked.get(request.request_id, 0) + 1
        if self.asked[request.request_id] <= params.get("unknown_for", 0):
            return None, False
        takes_steps = params.get("load_steps", 2) > 0
        tokens = params.get("remote_tokens", 0)
        if params.get("do_remote_prefill"):  # vLLM needs a token to compute in this very step
            tokens = request.num_prompt_tokens - (not takes_steps)
        found = max(0, tokens - num_computed_tokens)
        return found, found > 0 and takes_steps

    def update_state_after_alloc(self, request, blocks, num_external_tokens):
        """Loading begins; what was fetched once is not there again."""
        if num_external_tokens:
            params = request.kv_transfer_params
            params["do_remote_prefill"] = False
            if params.get("load_steps", 2):
                self._loading[request.request_id] = params.get("load_steps", 2)

    def loaded(self) -> set[str]:
        """One more step has passed: whose KV has come."""
        self._loading = {name: left - 1 for name, left in self._loading.items()}
        done = {name for name, left in self._loading.items() if left <= 0}
        for name in done:
            del self._loading[name]
        return done

    def request_finished_all_groups(self, request, block_ids):
        """Its blocks may go at once."""
        return False, None

    def build_connector_meta(self, scheduler_output):
        """Nothing for a worker to do."""
        return KVConnectorMetadata()

    def start_load_kv(self, forward_context, **kwargs):
        """A worker's."""

    def wait_for_layer_load(self, layer_name):
        """A worker's."""

    def save_kv_layer(self, layer_name, kv_layer, attn_metadata, **kwargs):
        """A worker's."""

    def wait_for_save(self):
        """A worker's."""
