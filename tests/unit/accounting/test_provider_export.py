"""Exports of providers, in the shapes that they come in."""

import contextlib
import json
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollway.accounting import provider_export as module
from tollway.accounting.provider_export import Exported, ExportError, read_mistral, read_openai

DAY = date(2027, 1, 2)
MIDNIGHT = 1_798_848_000  # of that day


def page(*results: dict[str, object]) -> dict[str, object]:
    bucket = {"object": "bucket", "start_time": MIDNIGHT, "end_time": MIDNIGHT + 86_400, "results": list(results)}
    return {"object": "page", "data": [bucket], "has_more": False, "next_page": None}


RESULT = {
    "object": "organization.usage.completions.result",
    "input_tokens": 1000,
    "output_tokens": 500,
    "input_cached_tokens": 800,
    "num_model_requests": 5,
    "project_id": None,
    "api_key_id": "key_abc",
    "model": "gpt-4o-2024-08-06",
    "batch": None,
}
ROW = Exported(DAY, "gpt-4o-2024-08-06", "key_abc", 5, 1000, 800, 500)


@pytest.mark.parametrize(
    "data",
    [
        json.dumps(page(RESULT)),
        json.dumps([page(), page(RESULT)]),
        json.dumps(page()) + "\n" + json.dumps(page(RESULT)) + "\n",
        "start_time,api_key_id,model,num_model_requests,input_tokens,input_cached_tokens,output_tokens\n"
        f"{MIDNIGHT},key_abc,gpt-4o-2024-08-06,5,1000,800,500\n",
        "\ufeffDate,Model,API key ID,Requests,Input tokens,Cached tokens,Output tokens,else\n"
        "2027-01-02,gpt-4o-2024-08-06,key_abc,5,1000,800,500,x\n",
        "start_time_iso,model,api_key_id,requests,prompt_tokens,input_cached_tokens,completion_tokens\n"
        "2027-01-02T03:00:00+02:00,gpt-4o-2024-08-06,key_abc,5,1000,800,500\n",
    ],
)
def test_openais_exports(data: str) -> None:
    kind = "" if "," in data.partition("\n")[0] and data[:1] not in "{[" else "completions"
    assert read_openai(data.encode()) == [ROW._replace(kind=kind)]


def test_what_an_export_does_not_say_is_not_nothing() -> None:
    result = {"object": "organization.usage.images.result", "images": 2, "model": "m", "input_tokens": None}
    assert read_openai(json.dumps(page(result)).encode()) == [Exported(DAY, "m", "", None, None, None, None, "images")]
    table = b"date,model,input_tokens,output_tokens\n2027-01-02,m,5,1\n"
    assert read_mistral(table) == [Exported(DAY, "m", "", None, 5, None, 1)]


def test_mistrals_export() -> None:
    metered = {"timestamp": "2027-01-02T10:00:00Z", "billing_metric": "tokens"}
    model = {
        "input": [{**metered, "value": 70}],
        "output": [{**metered, "value": 30}],
        "cached": [{**metered, "value": 5}],
    }
    answer = {
        "currency": "EUR",
        "start_date": "2027-01-01",
        "completion": {"models": {"mistral-large-latest::x": model}},
    }
    assert read_mistral(json.dumps(answer).encode()) == [
        Exported(DAY, "mistral-large-latest", "", None, 70, None, 0),
        Exported(DAY, "mistral-large-latest", "", None, 5, 5, 0),
        Exported(DAY, "mistral-large-latest", "", None, 0, None, 30),
    ]


def test_what_is_nested_without_end_is_told() -> None:
    with pytest.raises(ExportError, match="cannot be read"):
        read_mistral(b'{"completion": {"models": {"m": ' + b"[" * 200_000 + b"]" * 200_000 + b"}}}")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("", "neither JSON nor a table"),
        ("{}", "cannot be read"),
        (json.dumps(page()), "no row of usage"),
        (json.dumps(page({**RESULT, "model": None})), "told apart by model"),
        (json.dumps(page({**RESULT, "input_tokens": -1})), "cannot be read"),
        ("start_time,model,cost\n", "neither JSON nor a table"),
        ("date,model,input_tokens,output_tokens\n9999-12-31,m,1,1\n", "9999-12-31 is no day"),
        ("date,model,input_tokens,output_tokens\nsoon,m,1,1\n", "line 2: 'soon' is no date"),
        ("date,model,input_tokens,output_tokens\n2027-01-01,m,1.5,1\n", "line 2: '1.5' is no number"),
    ],
)
def test_what_is_no_export_is_told(data: str, reason: str) -> None:
    with pytest.raises(ExportError, match=reason):
        read_openai(data.encode())


def test_rows_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ROWS", 3)
    with pytest.raises(ExportError, match="more than 3 rows"):
        read_openai(json.dumps(page(*[RESULT] * 4)).encode())


@given(
    st.one_of(
        st.binary(), st.text().map(str.encode), st.binary().map(b"date,model,input_tokens,output_tokens\n".__add__)
    )
)
def test_junk_is_refused_in_one_way(data: bytes) -> None:
    for read in (read_openai, read_mistral):
        with contextlib.suppress(ExportError):
            assert read(data)
