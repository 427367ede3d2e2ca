"use strict";
/* Renders a request as JSON, as a shell command and as Python. */
const snippets = (() => {
  /* Control, invisible and bidirectional characters, which must not reach a terminal. */
  const UNSEEN = /[\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/g;

  const escaped = (character) => "\\u" + character.charCodeAt(0).toString(16).padStart(4, "0");

  /* The JSON of a request's body, exactly as sent. */
  const json = (body) => JSON.stringify(body, null, 2).replace(UNSEEN, escaped);

  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

  /* A here-document with a quoted delimiter is not expanded, and no line of JSON equals the delimiter. */
  function curl({ url, body, hasKey }) {
    const key = hasKey ? ['  -H "Authorization: Bearer $RANKLLM_API_KEY" \\'] : [];
    return [
      `curl ${quoted(url)} \\`,
      "  -H 'Content-Type: application/json' \\",
      ...key,
      "  --data-binary @- <<'JSON'",
      json(body),
      "JSON",
      "",
    ].join("\n");
  }

  /* A value as a Python literal. JSON strings and numbers are valid Python. */
  function literal(value, indent) {
    const inside = indent + "    ";
    if (Array.isArray(value)) {
      return value.length ? `[\n${value.map((item) => `${inside}${literal(item, inside)},\n`).join("")}${indent}]` : "[]";
    }
    if (value !== null && typeof value === "object") {
      const items = Object.entries(value).map(([name, item]) => `${inside}${json(name)}: ${literal(item, inside)},\n`);
      return items.length ? `{\n${items.join("")}${indent}}` : "{}";
    }
    if (value === null) return "None";
    return typeof value === "boolean" ? (value ? "True" : "False") : json(value);
  }

  function python({ url, body, hasKey }) {
    const key = hasKey ? ['        "Authorization": "Bearer " + os.environ["RANKLLM_API_KEY"],'] : [];
    return [
      "import json",
      ...(hasKey ? ["import os"] : []),
      "import urllib.request",
      "",
      `body = ${literal(body, "")}`,
      "request = urllib.request.Request(",
      `    ${json(url)},`,
      "    data=json.dumps(body).encode(),",
      "    headers={",
      '        "Content-Type": "application/json",',
      ...key,
      "    },",
      ")",
      "with urllib.request.urlopen(request) as response:",
      "    print(json.dumps(json.load(response), indent=2))",
      "",
    ].join("\n");
  }

  return { json, curl, python };
})();
