"""The checker in this process. `heartbeat.django` is made of it; its names may change."""

from __future__ import annotations

import os
from collections.abc import Sequence

class Checker:
    def __init__(self, *, file: str | os.PathLike[str] | None = None, text: str | None = None, folder: str | os.PathLike[str] | None = None) -> None: ...
    def read(self) -> tuple[list[tuple[str, bool, int | None, int | None, str]], list[str] | None, bool]: ...
    def answer(
        self,
        method: str,
        path: str,
        *,
        query: str = "",
        headers: Sequence[tuple[str, bytes]] = ...,
        client: str | None = None,
        encrypted: bool = False,
        asked_at: str | None = None,
    ) -> tuple[int, list[tuple[str, str]], bytes]: ...
    def run(self, subset: str, *, format: str = "text", timeout: str | None = None) -> tuple[int, str, list[str]]: ...

def changes() -> list[tuple[int, str]]: ...
