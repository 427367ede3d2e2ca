"""JSON schemas of requests and responses: exactly what the parsers in `questions` and `pairs` accept.

Rules that schemas cannot express: that two arrays have the same length (`/score`), that all windows are full with
`--no-variable-passages`, and that FIRST or a pairwise model has scored every document (`raw_scores`). Such requests are
refused with the status of an invalid value. Exceeding `--max-documents`, like `--max-body`, is about size, not form:
413.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rankllm_core.text import TEXT_FIELDS
from rankllm_infer.serving.dialects.abilities import (
    NULL,
    Abilities,
    Schema,
    array_of,
    full_rule,
    given,
    object_of,
    window_rules,
)
from rankllm_infer.serving.dialects.explanation_schema import EXPLANATION
from rankllm_infer.serving.dialects.fields import FIELDS
from rankllm_infer.serving.dialects.pairs import FIELDS_OF_PAIRS, SPELLINGS
from rankllm_infer.serving.dialects.questions import RERANK_PATHS, VLLM_FIELDS, dialect_of

NOT_BLANK = r"[^\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]"
"""A character that `str.strip` keeps; \\s matches different sets in the regular expressions of different languages."""
_NAME = {"type": "string"}
_COUNT = {"type": "integer", "minimum": 0}
_SECONDS = {"type": "number", "minimum": 0}
_RELEVANCE = {"type": "number", "minimum": 0, "maximum": 1}
_INDEX = _COUNT | {"description": "0-based position of the document in the request."}
_TEXTS = {"type": "array", "items": _NAME}


def request_schemas(abilities: Abilities) -> dict[str, Schema]:
    """Return name -> schema of request contents; `RerankRequest` is common to all paths."""
    schemas = {"Document": _document(), "RerankRequest": _rerank_request(abilities)}
    return schemas | ({"ScoreRequest": _score_request(abilities)} if abilities.scores_pairs else {})


def rerank_request(path: str) -> Schema:
    """Return the schema of a request to one of RERANK_PATHS: only vLLM's dialect accepts 0 for `top_n`."""
    common = {"$ref": "#/components/schemas/RerankRequest"}
    may_be_none = given("documents", {"not": NULL})
    if not dialect_of(path).may_ask_for_none:
        may_be_none["anyOf"] = [given(field, {"not": NULL}) for field in VLLM_FIELDS]
    return {"allOf": [common, {"anyOf": [{"properties": {"top_n": {"minimum": 1}}}, may_be_none]}]}


def response_schemas(abilities: Abilities) -> dict[str, Schema]:
    """Return name -> schema of response contents."""
    schemas = {
        "Ranking": _ranking(abilities),
        "TeiRanking": array_of(object_of({"index": _INDEX, "score": _tei_score(abilities), "text": _NAME}, "text")),
        "Usage": object_of(dict.fromkeys(("prompt_tokens", "completion_tokens", "total_tokens"), _COUNT)),
        "Models": _models(abilities),
        "State": object_of({"status": {"const": "ok"}}),
        **_errors(),
    }
    return schemas | ({"Scores": _scores()} if abilities.scores_pairs else {})


def _rerank_request(abilities: Abilities) -> Schema:
    about = f"At most {abilities.max_documents} (--max-documents); requests with more get 413."
    documents = {"type": "array", "items": {"$ref": "#/components/schemas/Document"}, "minItems": 1}
    properties = {name: field.schema for name, field in FIELDS.items()}
    properties["query"] |= {"type": "string", "pattern": NOT_BLANK}
    properties |= _model_fields(abilities)
    properties["strategy"] = _only(FIELDS["strategy"].schema, *abilities.strategies)
    if abilities.raw_scores == "never":
        properties["raw_scores"] = _only(properties["raw_scores"], False)
    one_text = {"type": "string", "description": "One document."}
    # TEI's response is an array, which cannot contain an explanation.
    texts = given("texts", documents | {"description": f"TEI's `documents`. {about}"})
    either = [
        given("documents", {"anyOf": [documents | {"description": about}, one_text]}),
        {"allOf": [_not("documents"), texts, {"properties": {"explain": {"enum": [False, None]}}}]},
    ]
    windows = abilities.windows
    rules = [{"anyOf": list(window_rules(windows))}, full_rule(windows)] if windows else []
    if abilities.windows is None:
        properties |= {name: _only(FIELDS[name].schema) for name in ("window_size", "stride")}
    else:
        properties |= {
            name: FIELDS[name].schema | {"maximum": abilities.windows.size} for name in ("window_size", "stride")
        }
    return {
        "type": "object",
        "properties": properties,
        "required": ["query"],
        "anyOf": either,
        **({"allOf": rules} if rules else {}),
    }


def _model_fields(abilities: Abilities) -> dict[str, Schema]:
    """Return the fields that depend on the model and are the same for rankings and pairs."""
    fields = {name: FIELDS[name].schema for name in FIELDS_OF_PAIRS}
    if abilities.models is not None:
        fields["model"] = _only(fields["model"], *abilities.models, "")
    if not abilities.takes_instruction:
        fields["instruction"] = _only(fields["instruction"], "")
    return fields


def _document() -> Schema:
    """Return the schema of a document: a string, or an object whose first non-null text field, and title, can be read
    as text."""
    text = {"type": ["string", "number", "boolean"]}
    ways = [
        {"properties": {**dict.fromkeys(TEXT_FIELDS[:number], NULL), field: text}, "required": [field]}
        for number, field in enumerate(TEXT_FIELDS)
    ]
    empty = {
        "properties": dict.fromkeys(TEXT_FIELDS, NULL),
        "anyOf": [{"required": [field]} for field in TEXT_FIELDS],
    }
    title = {"title": {"type": [*text["type"], "null"]}}
    return {"anyOf": [_NAME, {"type": "object", "properties": title, "anyOf": [*ways, empty]}]}


def _score_request(abilities: Abilities) -> Schema:
    several = _TEXTS | {"minItems": 2}
    one = {"anyOf": [_NAME, _TEXTS | {"minItems": 1, "maxItems": 1}]}
    any_number = {"anyOf": [_NAME, _TEXTS | {"minItems": 1}]}
    ways = []
    for number, (first, second) in enumerate(SPELLINGS):
        earlier = dict.fromkeys((key for keys in SPELLINGS[:number] for key in keys), NULL)
        for properties in ({first: one, second: any_number}, {first: several, second: several}):
            ways.append({"properties": earlier | properties, "required": [first, second]})
    return {"type": "object", "properties": _model_fields(abilities), "anyOf": ways}


def _ranking(abilities: Abilities) -> Schema:
    def results(score: Schema) -> Schema:
        return array_of(
            object_of({"index": _INDEX, "relevance_score": score, "document": {"type": "object"}}, "document")
        )

    tokens = object_of(dict.fromkeys(("input_tokens", "output_tokens"), _COUNT))
    meta = _meta() | {
        "api_version": object_of({"version": {"enum": ["1", "2"]}}),
        "billed_units": object_of({"search_units": _COUNT}),
        "tokens": tokens,
    }
    ranking = object_of(
        {
            "id": _NAME,
            "model": _NAME,
            "results": results({"type": "number"}),
            "usage": {"$ref": "#/components/schemas/Usage"},
            "meta": object_of(meta),
            "explanation": EXPLANATION,
        },
        "explanation",
    )
    scored = {"properties": {"results": results(_RELEVANCE)}}
    if abilities.raw_scores == "never":
        return ranking | {"properties": ranking["properties"] | {"results": results(_RELEVANCE)}}
    is_raw = {"properties": {"meta": {"properties": {"score_kind": {"const": "raw"}}}}}
    return ranking | {"anyOf": [is_raw, scored]}


def _tei_score(abilities: Abilities) -> Schema:
    return _RELEVANCE if abilities.raw_scores == "never" else {"type": "number"}


def _scores() -> Schema:
    score = {"index": _INDEX, "object": {"const": "score"}, "score": _RELEVANCE}
    return object_of(
        {
            "id": _NAME,
            "object": {"const": "list"},
            "created": _COUNT,
            "model": _NAME,
            "data": array_of(object_of(score)),
            "usage": {"$ref": "#/components/schemas/Usage"},
            "meta": object_of(_meta()),
        }
    )


def _meta() -> dict[str, Schema]:
    return {
        "status": {"enum": ["ok", "repaired", "fallback"]},
        "defects": _TEXTS,
        "warnings": _TEXTS,
        "score_kind": {"enum": ["probability", "sigmoid", "softmax", "preference", "rank", "raw"]},
        **dict.fromkeys(("calls", "rounds"), _COUNT),
        **dict.fromkeys(("queued_s", "computed_s"), _SECONDS),
    }


def _models(abilities: Abilities) -> Schema:
    name = _NAME if abilities.models is None else {"enum": list(abilities.models)}
    model = {
        "id": name,
        "object": {"const": "model"},
        "created": _COUNT,
        "owned_by": _NAME,
        "ranking": _model_ranking(),
    }
    return object_of({"object": {"const": "list"}, "data": array_of(object_of(model)) | {"minItems": 1}})


def _model_ranking() -> Schema:
    """Return the schema of `serving.capabilities`."""
    return object_of(
        {
            "method": {"enum": ["listwise", "pointwise", "pairwise"]},
            "strategies": array_of(_NAME, "Strategies that a request may choose."),
            "strategy": {"type": ["string", "null"], "description": "The server's strategy."},
            "window_size": {"type": ["integer", "null"], "description": "Maximum window size; listwise only."},
            "stride": {"type": ["integer", "null"]},
            "instruction": {"type": "boolean", "description": "Whether the model takes an instruction."},
            "raw_scores": {"type": "boolean", "description": "Whether the model scores documents."},
            "max_documents": _COUNT,
            "max_body": _COUNT | {"description": "Bytes."},
        }
    )


def _errors() -> dict[str, Schema]:
    """Return the schema of an error body in each dialect."""
    openai = {"message": _NAME, "type": _NAME, "param": NULL, "code": {"type": "integer"}}
    return {
        "CohereError": object_of({"message": _NAME}),
        "JinaError": object_of({"detail": _NAME}),
        "VllmError": object_of({"error": object_of(openai)}),
        "TeiError": object_of({"error": _NAME, "error_type": _NAME}),
    }


def error_schema(path: str) -> Schema:
    """Return the schema of error bodies for a path: in its own dialect, or in one selected by the request's fields."""
    bodies = ({}, {"texts": []}, {"rank_fields": []}, dict.fromkeys(VLLM_FIELDS, 0)) if path in RERANK_PATHS else ({},)
    names = {dialect_of(path, body).name.partition("-")[0] for body in bodies}
    schemas = [{"$ref": f"#/components/schemas/{name.capitalize()}Error"} for name in sorted(names)]
    return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}


def _not(name: str) -> Schema:
    return {"properties": {name: NULL}}


def _only(schema: Mapping[str, Any], *values: object) -> Schema:
    """Return the schema of a field that only accepts these values or null, which counts as missing."""
    return {"enum": [*values, None], "description": schema["description"]}
