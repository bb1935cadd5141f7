"""Written by protoc from ``testbed/rpc/edge.proto`` (``make proto``); nothing here is edited."""

from __future__ import annotations
