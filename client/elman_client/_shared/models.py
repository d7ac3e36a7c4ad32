"""Calls about models and about the server itself."""

from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from elman.v1 import model_pb2 as pb
from elman_client import _types as types
from elman_client._shared import values
from elman_client._shared.fields import fill
from elman_client._shared.names import model_name
from elman_client._shared.operation import Operation, operation

_SERVING = 1  # HealthCheckResponse.ServingStatus.SERVING


def page(page_token: str) -> Operation[tuple[tuple[types.Model, ...], str]]:
    """Return one page of the served models and the next page's token, empty at the end."""
    request = pb.ListModelsRequest()
    fill(request, page_token=page_token)
    return operation(
        "elman.v1.ModelService/ListModels",
        request,
        pb.ListModelsResponse,
        lambda reply: (tuple(map(values.model, reply.models)), reply.next_page_token),
    )


def get(name: str) -> Operation[types.Model]:
    """Return one model."""
    request = pb.GetModelRequest()
    fill(request, name=model_name(name))
    return operation(
        "elman.v1.ModelService/GetModel",
        request,
        pb.GetModelResponse,
        lambda reply: values.model(reply.model),
    )


def encode_text(model: str, text: str) -> Operation[types.Encoding]:
    """Return a text's ids."""
    request = pb.EncodeTextRequest()
    fill(request, model=model_name(model), text=text)
    return operation("elman.v1.ModelService/EncodeText", request, pb.EncodeTextResponse, values.encoding)


def is_serving(service: str) -> Operation[bool]:
    """Ask grpc.health.v1.

    Its messages come with the server's packages only; ``{string = 1}`` and ``{enum = 1}`` are, on
    the wire, the same as protobuf's own wrappers of a string and a number.
    """
    request = StringValue()
    fill(request, value=service)
    return operation(
        "grpc.health.v1.Health/Check",
        request,
        Int32Value,
        lambda reply: bool(reply.value == _SERVING),
        is_safe=False,  # the caller wants to know now
    )
