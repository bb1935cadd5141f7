"""Conformance suite of ``ArtifactStore``; subclass it with a ``store`` fixture, an empty one.

``spoil`` must change a stored file behind the store's back: ``spoil(key, name, data)`` replaces its
bytes, or deletes it where ``data`` is None.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest

from testbed.errors import PermanentError, UsageError
from testbed.storage.artifacts.base import MANIFEST, ArtifactStore

FILES: Final[dict[str, bytes]] = {
    "actor.onnx": bytes(range(256)) * 64,
    "policy.json": '{"encoder": "paper-v1", "name": "ü"}\n'.encode(),
    "curves/reward.csv": b"",
}

Spoil = Callable[[str, str, bytes | None], None]


class ArtifactStoreContract:
    """Give it fixtures ``store`` (empty) and ``spoil``."""

    def test_files_come_back_as_they_were_put(self, store: ArtifactStore) -> None:
        store.put("policies/one", FILES)
        assert store.get("policies/one") == FILES
        assert store.exists("policies/one")

    def test_a_folder_is_stored_with_all_below_it(
        self, store: ArtifactStore, tmp_path: Path
    ) -> None:
        folder = tmp_path / "made here"
        for name, data in FILES.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        store.put("one", folder)
        assert store.get("one") == FILES

    def test_what_is_put_again_must_be_the_same(self, store: ArtifactStore) -> None:
        store.put("policies/one", FILES)
        store.put("policies/one", FILES)
        for other in (
            {**FILES, "policy.json": b"{}"},
            {**FILES, "more": b""},
            {"actor.onnx": FILES["actor.onnx"]},
        ):
            with pytest.raises(UsageError, match="never change"):
                store.put("policies/one", other)
        assert store.get("policies/one") == FILES

    def test_keys_are_listed_by_prefix(self, store: ArtifactStore) -> None:
        assert store.list() == []
        assert store.list("policies") == []
        for key in ("policies/b", "policies/a", "policies-old/c", "data/x/y"):
            store.put(key, {"file": key.encode()})
        assert store.list() == ["data/x/y", "policies-old/c", "policies/a", "policies/b"]
        assert store.list("policies") == ["policies/a", "policies/b"]
        assert store.list("data/x") == ["data/x/y"]
        assert store.list("policies/a") == ["policies/a"]
        assert store.list("nothing") == []

    def test_an_unknown_key_names_the_known_ones(self, store: ArtifactStore) -> None:
        with pytest.raises(UsageError, match="none yet"):
            store.get("policies/one")
        store.put("policies/one", FILES)
        with pytest.raises(UsageError, match="there are 1: policies/one"):
            store.get("policies/two")
        with pytest.raises(UsageError, match="no such artifact"):
            store.get("policies")
        assert not store.exists("policies/two")
        assert not store.exists("policies")

    def test_what_was_removed_is_gone(self, store: ArtifactStore) -> None:
        store.put("policies/one", FILES)
        store.put("policies/two", FILES)
        store.remove("policies/one")
        store.remove("policies/one")
        store.remove("policies")
        assert store.list() == ["policies/two"]
        with pytest.raises(UsageError, match="no such artifact"):
            store.get("policies/one")
        store.put("policies/one", {"other": b"content"})
        assert store.get("policies/one") == {"other": b"content"}

    def test_no_artifact_lies_within_another(self, store: ArtifactStore) -> None:
        store.put("policies/one", FILES)
        with pytest.raises(UsageError, match="policies/one holds other content"):
            store.put("policies/one/two", FILES)
        with pytest.raises(UsageError, match="policies holds other content"):
            store.put("policies", FILES)
        assert store.list() == ["policies/one"]

    @pytest.mark.parametrize(
        "key",
        [
            "",
            "/etc",
            "../up",
            "a/../b",
            "a..b",
            "a//b",
            "a/",
            ".hidden",
            "Upper",
            "sp ace",
            "a/b/c/d/e",
            "x" * 101,
            "back\\slash",
            "line\n",
        ],
    )
    def test_a_wrong_key_is_refused_everywhere(self, store: ArtifactStore, key: str) -> None:
        with pytest.raises(UsageError, match="invalid artifact key"):
            store.put(key, FILES)
        with pytest.raises(UsageError, match="invalid artifact key"):
            store.get(key)
        with pytest.raises(UsageError, match="invalid artifact key"):
            store.exists(key)
        with pytest.raises(UsageError, match="invalid artifact key"):
            store.remove(key)
        assert store.list() == []

    @pytest.mark.parametrize(
        "name", ["", "../up", "/etc/passwd", "a/../b", ".hidden", "sp ace", MANIFEST, "a\n"]
    )
    def test_a_wrong_name_of_a_file_is_refused(self, store: ArtifactStore, name: str) -> None:
        with pytest.raises(UsageError, match="is not a valid name for a file"):
            store.put("one", {"good": b"", name: b""})
        assert store.list() == []

    def test_content_that_is_none_is_refused(self, store: ArtifactStore, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="has no files"):
            store.put("one", {})
        with pytest.raises(UsageError, match="is not a folder"):
            store.put("one", tmp_path / "absent")
        folder = tmp_path / "folder"
        folder.mkdir()
        with pytest.raises(UsageError, match="has no files"):
            store.put("one", folder)
        (folder / "secret").symlink_to("/etc/hostname")
        with pytest.raises(UsageError, match="is not a regular file"):
            store.put("one", folder)
        assert store.list() == []

    def test_an_altered_artifact_is_not_given_out(self, store: ArtifactStore, spoil: Spoil) -> None:
        store.put("one", FILES)
        spoil("one", "actor.onnx", FILES["actor.onnx"][:-1] + b"x")
        with pytest.raises(PermanentError, match=r"actor\.onnx was altered"):
            store.get("one")

    def test_a_truncated_artifact_is_not_given_out(
        self, store: ArtifactStore, spoil: Spoil
    ) -> None:
        store.put("one", FILES)
        spoil("one", "actor.onnx", FILES["actor.onnx"][:100])
        with pytest.raises(PermanentError, match="100 bytes instead of 16384"):
            store.get("one")

    def test_an_incomplete_artifact_is_not_given_out(
        self, store: ArtifactStore, spoil: Spoil
    ) -> None:
        store.put("one", FILES)
        spoil("one", "policy.json", None)
        with pytest.raises(PermanentError, match=r"policy\.json is missing"):
            store.get("one")

    @pytest.mark.parametrize(
        "manifest",
        [
            b"",
            b"{",
            b"[]",
            b"{}",
            b'{"version": 2, "files": {}}',
            b'{"version": 1, "files": {"../../up": {"bytes": 0, "sha256": ""}}}',
        ],
    )
    def test_a_damaged_manifest_is_explained(
        self, store: ArtifactStore, spoil: Spoil, manifest: bytes
    ) -> None:
        store.put("one", FILES)
        spoil("one", MANIFEST, manifest)
        with pytest.raises(PermanentError, match="its manifest is"):
            store.get("one")

    def test_the_same_from_many_at_once_is_stored_once(self, store: ArtifactStore) -> None:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: store.put("one", FILES), range(8)))
        assert store.get("one") == FILES

    def test_of_different_ones_at_once_one_is_stored_whole(self, store: ArtifactStore) -> None:
        def put(number: int) -> bool:
            try:
                store.put("one", {"number": str(number).encode(), "same": b"for all"})
            except UsageError:
                return False
            return True

        with ThreadPoolExecutor(4) as pool:
            stored = list(pool.map(put, range(8)))
        assert stored.count(True) == 1
        assert store.get("one")["number"] == str(stored.index(True)).encode()
