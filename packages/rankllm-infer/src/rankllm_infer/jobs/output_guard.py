"""Outputs that are there already: which of them a run may replace, and whose journal lies beside them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rankllm_core.errors import RankLLMError
from rankllm_core.files import check_output, refuse_same_file
from rankllm_infer.jobs.journal import Journal, journal_path
from rankllm_infer.jobs.outputs import OutputFiles
from rankllm_infer.wording import count


def open_journal(files: OutputFiles, *, overwrite: bool, sources: Sequence[str | Path]) -> Journal:
    """Open the journal beside a run's first output. sources: files that are read.

    Raises RankLLMError where an output or the journal cannot be written, or would replace what is read.
    """
    for output in files.paths():
        check_output(output, overwrite=True)
        for source in sources:
            refuse_same_file(source, output)
    path, *others = (journal_path(output) for output in files.paths())
    check_output(path, overwrite=True)
    for source in sources:
        refuse_same_file(source, path)
    if path in files.paths():
        raise RankLLMError(f"{path}: is to hold an output and the journal of {files.paths()[0]}; use another name")
    if not overwrite and (beside := [other for other in others if other.exists()]):
        raise RankLLMError(
            f"{beside[0]}: an unfinished run that does not write {files.paths()[0]}; "
            "give the outputs that it was begun with, or delete it"
        )
    return Journal(path, is_new=overwrite)


def check_outputs(files: OutputFiles, journal: Journal, *, resume: bool) -> None:
    """Raise RankLLMError where an output exists that the journal's run may not replace.

    resume: whether failed queries are to be retried, or the outputs of this run written.
    """
    for path in files.paths():
        is_ours = str(path.absolute()) in journal.outputs
        if path.exists() and is_ours and journal.is_complete and not resume:
            raise RankLLMError(
                f"{path}: exists; {count(journal.n_failed, 'query')} of its run failed: --resume tries again, "
                "--overwrite begins anew"
            )
        if is_ours and journal.was_edited(path):
            raise RankLLMError(
                f"{path}: has changed since this run wrote it; move it away to have it written anew, or use --overwrite"
            )
        check_output(path, overwrite=is_ours)
