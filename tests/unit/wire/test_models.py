"""The models endpoint's answers are OpenAI's."""

from openai.types import Model as SdkModel

from tollway.wire.models import Model, model_list, model_object

ONE = b'{"id":"gpt-4o","object":"model","created":7,"owned_by":"openai"}'


def test_a_model_has_openais_members() -> None:
    assert model_object(Model(id="gpt-4o", created=7, owned_by="openai")) == ONE
    SdkModel.model_validate_json(ONE, strict=True)


def test_models_are_a_list() -> None:
    model = Model(id="gpt-4o", created=7, owned_by="openai")
    assert model_list([model, model]) == b'{"object":"list","data":[%b,%b]}' % (ONE, ONE)
    assert model_list([]) == b'{"object":"list","data":[]}'
