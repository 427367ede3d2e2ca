"""A chat server that ranks: it reads how relevant a passage is from the passage itself ("... worth 7 ...")."""

from __future__ import annotations

import json
import re

from chat_server import Reply, chat_reply, logprobs_reply

_PASSAGE = re.compile(r"^\[(\w+)\].*worth (\d+)", re.MULTILINE)
_WORTH = re.compile(r"<Document>.*worth (\d+)")


def respond(received):
    """The model `oracle`: generation, FIRST and yes/no, told apart as a model would, by what it is asked."""
    if received.path.endswith("/models"):
        return {"object": "list", "data": [{"id": "oracle"}]}
    messages = received.body["messages"]
    asked = next(message["content"] for message in messages if message["role"] == "user")
    if found := _WORTH.search(asked):
        worth = int(found[1])
        return logprobs_reply({"yes": -1.0 / (1 + worth), "no": -1.0 - worth})
    ranked = [label for label, _ in sorted(_PASSAGE.findall(asked), key=lambda pair: -int(pair[1]))]
    if received.body.get("logprobs"):
        return logprobs_reply({label: -float(place) for place, label in enumerate(ranked)})
    return chat_reply(" > ".join(f"[{label}]" for label in ranked), prompt_tokens=11, completion_tokens=5)


def failing_on(text):
    """The same, but what holds `text` is refused, as a server does that has lost its mind over it."""

    def answer(received):
        if received.body and text in json.dumps(received.body):
            return Reply({"error": {"message": "cannot digest this"}}, status=400)
        return respond(received)

    return answer


def request(qid, *worth, doc=None):
    """A record of a requests file: candidates d1, d2, ... in first-stage order, each worth so much."""
    candidates = [
        {"docid": f"d{number}", "score": float(len(worth) - number), "doc": {"text": f"passage {number} worth {value}"}}
        for number, value in enumerate(worth, start=1)
    ]
    if doc is not None:
        candidates[0] |= doc
    return {"query": {"qid": qid, "text": f"question {qid}"}, "candidates": candidates}


def write_jsonl(path, *records):
    """One record a line. Returns the path."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path
