"""Text files: bounded reading by line, optionally compressed, and writing that leaves a complete file or none."""

from rankllm_core.files.json_text import dumps as dumps
from rankllm_core.files.json_text import read_json as read_json
from rankllm_core.files.json_text import read_jsonl as read_jsonl
from rankllm_core.files.reading import MAX_LINE_CHARACTERS as MAX_LINE_CHARACTERS
from rankllm_core.files.reading import open_bytes as open_bytes
from rankllm_core.files.reading import open_text as open_text
from rankllm_core.files.reading import read_lines as read_lines
from rankllm_core.files.reading import read_sound_lines as read_sound_lines
from rankllm_core.files.reading import read_text as read_text
from rankllm_core.files.reading import refuse_pipe as refuse_pipe
from rankllm_core.files.reading import unpacked_name as unpacked_name
from rankllm_core.files.writing import check_output as check_output
from rankllm_core.files.writing import check_outputs as check_outputs
from rankllm_core.files.writing import refuse_same_file as refuse_same_file
from rankllm_core.files.writing import sync_folder as sync_folder
from rankllm_core.files.writing import write_text as write_text
