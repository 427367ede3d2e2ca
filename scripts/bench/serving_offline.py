"""Ranks without a server for serving.py. Arguments: MODEL DTYPE. Each input line: [requests, number in flight]."""

from __future__ import annotations

import json
import sys
import time

import torch

from rankllm_infer import RerankOptions, load_reranker, make_request
from rankllm_infer.scheduling.pool import FlowPool

MODEL, DTYPE = sys.argv[1:]
torch.set_num_threads(1)
with load_reranker(MODEL, RerankOptions(dtype=DTYPE, device="cpu")) as reranker:
    print("ready", flush=True)
    for line in sys.stdin:
        bodies, n_in_flight = json.loads(line)
        requests = [make_request(body["query"], body["documents"], qid=str(place)) for place, body in enumerate(bodies)]
        began = time.monotonic()
        results = list(FlowPool(reranker.engine, max_active=n_in_flight).run(requests, reranker.method.flow))
        seconds = time.monotonic() - began
        scores = []
        for request, result in zip(requests, results, strict=True):
            by_id = {candidate.docid: candidate.score for candidate in result.candidates}
            scores.append([by_id[candidate.docid] for candidate in request.candidates])
        print(json.dumps([seconds, scores]), flush=True)
