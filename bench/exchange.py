"""What goes over the wire in every measurement: the request of a real client, the answer of a real provider.

Both carry the headers that OpenAI's Python library and OpenAI's servers send, because parsing and relaying them
costs every proxy something.
"""

import json

MODEL = "bench-chat"
MISTRAL_MODEL = "bench-chat-mistral"
"""The same provider, taken for one that speaks Mistral's dialect: its answers are valid in both."""
PATH = "/v1/chat/completions"

REQUEST_HEADERS = {
    "Accept": "application/json",
    "Accept-Encoding": "gzip, deflate",
    "Content-Type": "application/json",
    "User-Agent": "OpenAI/Python 3.54.0",
    "X-Stainless-Arch": "x64",
    "X-Stainless-Async": "false",
    "X-Stainless-Lang": "python",
    "X-Stainless-OS": "Linux",
    "X-Stainless-Package-Version": "3.54.0",
    "X-Stainless-Read-Timeout": "600",
    "X-Stainless-Retry-Count": "0",
    "X-Stainless-Runtime": "CPython",
    "X-Stainless-Runtime-Version": "3.11.7",
}

ANSWER_HEADERS = {
    "access-control-expose-headers": "X-Request-ID",
    "openai-organization": "example-organization",
    "openai-processing-ms": "412",
    "openai-version": "2020-10-01",
    "x-ratelimit-limit-requests": "10000",
    "x-ratelimit-limit-tokens": "2000000",
    "x-ratelimit-remaining-requests": "9999",
    "x-ratelimit-remaining-tokens": "1999712",
    "x-ratelimit-reset-requests": "6ms",
    "x-ratelimit-reset-tokens": "8ms",
    "x-request-id": "req_5f0c8e9b7f7f4b7e8a4f4c8a5d1c2b3a",
    "strict-transport-security": "max-age=31536000; includeSubDomains; preload",
    "cf-cache-status": "DYNAMIC",
    "x-content-type-options": "nosniff",
    "cf-ray": "91bde4f0a9c1e2d3-FRA",
    "alt-svc": 'h3=":443"; ma=86400',
}

_MESSAGES = [
    {"role": "system", "content": "You are a helpful assistant."},
    {"role": "user", "content": "Translate the following English text to French: Hello, world!"},
]


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def chat(model: str) -> str:
    """The body of a chat request."""
    return _compact({"messages": _MESSAGES, "model": model, "max_tokens": 256, "temperature": 0.2})


def streamed_chat(model: str) -> str:
    """The same for a stream."""
    return _compact({"messages": _MESSAGES, "model": model, "max_tokens": 256, "stream": True})


CHAT = chat(MODEL)

ANSWER = _compact(
    {
        "id": "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT",
        "object": "chat.completion",
        "created": 1741569952,
        "model": "gpt-4.1-2025-04-14",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "Hello! How can I assist you today? I can help with translations, summaries, code and "
                    "anything else that you might want to ask me about.",
                    "refusal": None,
                    "annotations": [],
                },
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 19,
            "completion_tokens": 10,
            "total_tokens": 29,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": 0,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        },
        "service_tier": "default",
        "system_fingerprint": "fp_06737a9306",
    }
)


def request(key: str, body: str) -> bytes:
    """One complete chat request."""
    headers = REQUEST_HEADERS | {"Authorization": f"Bearer {key}", "Content-Length": str(len(body))}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\n{lines}\r\n{body}".encode()


def event(delta: dict[str, str], finish_reason: str | None = None, *, usage_asked: bool) -> bytes:
    """One streamed frame. OpenAI puts ``"usage":null`` into each of them when the usage at the end was asked for."""
    return _frame(
        {
            "id": "chatcmpl-B9MHDbslfkBeAs8l4bebGdFOJ6PeG",
            "object": "chat.completion.chunk",
            "created": 1741570283,
            "model": "gpt-4.1-2025-04-14",
            "service_tier": "default",
            "system_fingerprint": "fp_44709d6fcb",
            "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}],
        }
        | ({"usage": None} if usage_asked else {})
    )


def usage_event(output_tokens: int) -> bytes:
    """The frame before ``[DONE]`` of a stream whose usage was asked for."""
    return _frame(
        {
            "id": "chatcmpl-B9MHDbslfkBeAs8l4bebGdFOJ6PeG",
            "object": "chat.completion.chunk",
            "created": 1741570283,
            "model": "gpt-4.1-2025-04-14",
            "choices": [],
            "usage": {
                "prompt_tokens": 19,
                "completion_tokens": output_tokens,
                "total_tokens": 19 + output_tokens,
            },
        }
    )


DONE = b"data: [DONE]\n\n"


def _frame(value: object) -> bytes:
    return b"data: " + _compact(value).encode() + b"\n\n"
