"""Published prompts as score templates: chat templates whose messages have the roles `query` and `document`."""

from __future__ import annotations

import json
import re


def chat_template(prompt):
    """The prompt in the language of chat templates, which drop a last line break unless it is quoted."""
    parts = re.split(r"{(query|document)}", prompt)
    roles = (f"(messages | selectattr('role', 'eq', '{role}') | first).content" for role in parts[1::2])
    written = [json.dumps(parts[0])]
    for role, text in zip(roles, parts[2::2], strict=True):
        written += [role, json.dumps(text)]
    return "".join(f"{{{{ {part} }}}}" for part in written)
