"""Prompts of published rerankers, written from the sources that are named beside the cards; not from our templates."""

from __future__ import annotations

QWEN3 = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}<|im_end|>\n"
    "<|im_start|>assistant\n<think>\n\n</think>\n\n"
)
WEB_SEARCH = "Given a web search query, retrieve relevant passages that answer the query"
MXBAI = (
    "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
    "<|im_start|>user\n{asked}\ndocument: {document}\n"
    "You are a search relevance expert who evaluates how well documents match search queries. For each query-document "
    "pair, carefully analyze the semantic relationship between them, then provide your binary relevance judgment "
    "(0 for not relevant, 1 for relevant).\nRelevance:<|im_end|>\n<|im_start|>assistant\n"
)
ZERANK = "<|im_start|>system\n{asked}<|im_end|>\n<|im_start|>user\n{document}<|im_end|>\n<|im_start|>assistant\n"
CTXL = (
    "Check whether a given document contains information helpful to answer the query.\n"
    "<Document> {document}\n<Query> {asked} ??"
)
GEMMA = (
    "A: {query}\nB: {document}\nGiven a query A and a passage B, determine whether the passage contains an answer to "
    "the query by providing a prediction of either 'Yes' or 'No'."
)
NEMOTRON = "question:{query} \n \n passage:{document}"
MONOT5 = "Query: {query} Document: {document} Relevant:"
DUOT5 = "Query: {query} Document0: {document0} Document1: {document1} Relevant:"
