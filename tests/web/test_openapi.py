"""The OpenAPI document, and a client that was made from it alone."""

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


def test_requests_made_from_the_document_get_the_answers_that_it_names(web):
    """Right and wrong requests for every operation: no 5xx, and every answer as it is described."""
    schema = schemathesis.openapi.from_url(f"{web.url}/openapi.json")
    schema.validate()
    operations = [operation.ok() for operation in schema.get_all_operations()]  # type: ignore[union-attr] # or it raises
    assert len(operations) >= 18
    for operation in operations:

        @given(case=operation.as_strategy())
        @settings(
            max_examples=4,
            phases=[Phase.generate],
            database=None,
            suppress_health_check=list(HealthCheck),
            deadline=None,
        )
        def run(case):
            case.call_and_validate(checks=CHECKS)

        run()
