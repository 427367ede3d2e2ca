"""Baseline for serving.py: CrossEncoder behind FastAPI. Arguments: MODEL DTYPE PORT."""

from __future__ import annotations

import sys
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from sentence_transformers import CrossEncoder

MODEL, DTYPE, PORT = sys.argv[1:]
torch.set_num_threads(1)
encoder = CrossEncoder(MODEL, device="cpu", max_length=196, model_kwargs={"dtype": getattr(torch, DTYPE)})
app = FastAPI()


class Question(BaseModel):
    """A query and the documents to rank."""

    query: str
    documents: list[str]


@app.post("/v2/rerank")
def rerank(question: Question) -> dict[str, Any]:
    """Score each document; FastAPI runs this in a thread pool."""
    pairs = [(f"query: {question.query}", f"document: {text}") for text in question.documents]
    scores = encoder.predict(pairs, show_progress_bar=False).tolist()
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    return {"results": [{"index": index, "relevance_score": scores[index]} for index in order]}


if __name__ == "__main__":
    uvicorn.run(app, port=int(PORT), log_level="warning")
