"""What processes send each other: plain values and tensors as bytes, without pickle."""

from __future__ import annotations

import json
from typing import Any

import safetensors.torch
from torch import Tensor

from ..codec import decode, encode

Message = dict[str, Any]
"""Names → numbers, words, tensors, and lists and mappings of these."""


def pack(message: Message) -> bytes:
    tensors: dict[str, Tensor] = {}
    text = json.dumps(encode(message, tensors))
    return safetensors.torch.save(tensors, {"hofit": text})


def unpack(data: bytes) -> Message:
    size = int.from_bytes(data[:8], "little")
    text = json.loads(data[8 : 8 + size])["__metadata__"]["hofit"]
    found: Message = decode(json.loads(text), safetensors.torch.load(data))
    return found
