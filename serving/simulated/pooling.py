"""Answers that take one step: embeddings, rerank and score, in vLLM's shapes (pure)."""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable, Mapping
from typing import Any

from serving.simulated.ask import AskError, templated
from serving.simulated.language import chance, decode, encode

_DIMENSIONS = 8


def embeddings(value: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """/v1/embeddings: the answer, and how many tokens were read. Raises AskError."""
    texts = [templated(value["messages"])] if "messages" in value else _texts(value.get("input"), "input")
    vectors = [[2 * chance("embedding", text, place) - 1 for place in range(_DIMENSIONS)] for text in texts]
    packed = value.get("encoding_format") == "base64"
    data = [
        {"index": index, "object": "embedding", "embedding": _packed(vector) if packed else vector}
        for index, vector in enumerate(vectors)
    ]
    return {"object": "list", "data": data}, sum(len(encode(text)) for text in texts)


def rerank(value: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """/rerank: the documents in the order of their scores."""
    query, documents = _texts(value.get("query"), "query")[0], _texts(value.get("documents"), "documents")
    scores = sorted(((_score(query, text), index) for index, text in enumerate(documents)), reverse=True)
    results = [
        {"index": index, "document": {"text": documents[index], "multi_modal": None}, "relevance_score": found}
        for found, index in scores
    ]
    read = sum(len(encode(query + text)) for text in documents)
    return {"results": results[: value.get("top_n") or len(results)]}, read


def score(value: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """/score: one query for all documents, or one for each."""
    one, other = ("queries", "documents") if "queries" in value else ("text_1", "text_2")
    queries, documents = _texts(value.get(one), one), _texts(value.get(other), other)
    if len(queries) not in {1, len(documents)}:
        raise AskError("Input lengths must be either 1:1, 1:N or N:N", param=one)
    pairs = list(zip(queries * (len(documents) // len(queries)), documents, strict=True))
    data = [{"index": index, "object": "score", "score": _score(*pair)} for index, pair in enumerate(pairs)]
    return {"object": "list", "data": data}, sum(len(encode(a + b)) for a, b in pairs)


POOLING: Mapping[str, Callable[[Mapping[str, Any]], tuple[dict[str, Any], int]]] = {
    "/v1/embeddings": embeddings,
    "/rerank": rerank,
    "/v1/rerank": rerank,
    "/v2/rerank": rerank,
    "/score": score,
    "/v1/score": score,
}


def _score(query: str, text: str) -> float:
    return chance("relevance", query, text)


def _packed(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _texts(value: Any, name: str) -> list[str]:
    """Return one text or many, given as words or as token ids. Raises AskError."""
    if isinstance(value, list) and value and isinstance(value[0], int):
        value = [value]
    values = value if isinstance(value, list) else [value]
    try:
        texts = [text if isinstance(text, str) else decode(text) for text in values]
    except (ValueError, TypeError, AttributeError):
        raise AskError(f"{name} must be texts or lists of token ids", param=name) from None
    if not texts:
        raise AskError(f"{name} must not be empty", param=name)
    return texts
