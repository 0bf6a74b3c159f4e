"""In what form do the long horizon's values lie in a checkpoint? Used by `graphs.checkpoints`.

LangGraph writes what it knows; our dataclasses go in as checked JSON, so that nothing is
unpickled and no class is imported by a name that stands in a file.
"""

import json
import zlib
from collections import OrderedDict
from typing import Any

from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from pydantic import TypeAdapter

from hmas_agents.records import DecisionRecord, Proposal
from hmas_agents.situation import Situation

_KINDS: dict[str, Any] = {kind.__name__: kind for kind in (DecisionRecord, Proposal, Situation)}
_MARK = "__hmas__"
_KEPT = 4  # values whose text is kept: each step of a decision writes the same situation
# Proposals that a record lists too; the nodes tell them apart by identity.
_ALSO_LISTED = ("incumbent", "rollback", "chosen")


class DecisionFormat(SerializerProtocol):
    """LangGraph's own serialiser, with the long horizon's dataclasses as JSON."""

    def __init__(self) -> None:
        self._plain = JsonPlusSerializer(allowed_msgpack_modules=None)
        self._adapters = {name: TypeAdapter(kind) for name, kind in _KINDS.items()}
        self._texts: OrderedDict[int, tuple[Any, bytes]] = OrderedDict()

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        """See SerializerProtocol."""
        return self._plain.dumps_typed(self._packed(obj))

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        """See SerializerProtocol. The proposals of one checkpoint are the same objects again.

        Raises:
            ValidationError: a value is not what this version writes.
        """
        value = self._unpacked(self._plain.loads_typed(data))
        if isinstance(value, dict) and isinstance(value.get("channel_values"), dict):
            _reunite(value["channel_values"])
        return value

    def _packed(self, value: Any) -> Any:
        name = type(value).__name__
        if _KINDS.get(name) is type(value):
            if isinstance(value, Situation):
                return {_MARK: name, "json": self._text_once(value)}
            fields = self._adapters[name].dump_python(value, mode="json", warnings=False)
            if isinstance(value, DecisionRecord):
                fields["situation"] = {}
                kept = self._text_once(value.situation)
                return {_MARK: name, "json": _text(fields), "situation": kept}
            return {_MARK: name, "json": _text(fields)}
        if isinstance(value, dict):
            return {key: self._packed(item) for key, item in value.items()}
        return [self._packed(item) for item in value] if isinstance(value, list) else value

    def _unpacked(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._unpacked(item) for item in value]
        if not isinstance(value, dict):
            return value
        name = value.get(_MARK)
        if name not in _KINDS:
            return {key: self._unpacked(item) for key, item in value.items()}
        fields = _read(value["json"])
        if "situation" in value:
            fields["situation"] = _read(value["situation"])
        return self._adapters[name].validate_python(fields)

    def _text_once(self, value: Any) -> bytes:
        """The text of a value that does not change; by identity, so the value is kept as well."""
        kept = self._texts.get(id(value))
        if kept is None:
            plain = value
            if isinstance(value, Situation):
                adapter = self._adapters["Situation"]
                plain = adapter.dump_python(value, mode="json", warnings=False)
            kept = self._texts[id(value)] = value, _text(plain)
            while len(self._texts) > _KEPT:
                self._texts.popitem(last=False)
        return kept[1]


def _text(fields: Any) -> bytes:
    return zlib.compress(json.dumps(fields).encode(), 1)


def _read(text: bytes) -> Any:
    return json.loads(zlib.decompress(text))


def _reunite(values: dict[str, Any]) -> None:
    """One object per proposal: the record's copies stand for those beside it.

    At a checkpoint the two were one object, hence equal; equal ones are the same here.
    """
    record = values.get("record")
    if not isinstance(record, DecisionRecord):
        return
    known = list(record.proposals)
    for key in _ALSO_LISTED:
        proposal = values.get(key)
        if proposal is None:
            continue
        same = next((each for each in known if each == proposal), None)
        if same is None:
            known.append(proposal)
        else:
            values[key] = same
