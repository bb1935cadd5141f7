"""The policy that ships, trained again and compared over networks that it was not trained on."""

from __future__ import annotations
