"""Files of a data set on the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rankllm_core.errors import RankLLMError, first_line


class HubRepository:
    """Data set repository; files downloaded earlier are also found offline."""

    def __init__(self, name: str) -> None:
        self.name = name

    def files(self, revision: str) -> Sequence[str]:
        """Return the paths of a revision's files; empty if there is no such revision. Raises RankLLMError offline."""
        from huggingface_hub import HfApi
        from huggingface_hub.errors import RevisionNotFoundError

        try:
            return HfApi().list_repo_files(self.name, repo_type="dataset", revision=revision)
        except RevisionNotFoundError:
            return ()
        except Exception as error:  # any network failure: the cache may still have it
            return self._cached_files(revision, error)

    def fetch(self, file: str, revision: str) -> Path:
        """Download a file, or find it in the hub's cache. Raises RankLLMError if neither is possible."""
        from huggingface_hub import hf_hub_download

        try:
            return Path(hf_hub_download(self.name, file, repo_type="dataset", revision=revision))
        except Exception as error:  # any network failure
            reason = first_line(error, with_kind=False)
            raise RankLLMError(
                f"{self.name}: the download of {file} was interrupted ({reason}); repeat the command to resume it"
            ) from None

    def _cached_files(self, revision: str, error: Exception) -> Sequence[str]:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError

        try:
            folder = Path(snapshot_download(self.name, repo_type="dataset", revision=revision, local_files_only=True))
        except LocalEntryNotFoundError:
            reason = first_line(error, with_kind=False)
            raise RankLLMError(
                f"{self.name}: its files cannot be listed on the hub ({reason}), and none are in the local cache"
            ) from None
        return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
