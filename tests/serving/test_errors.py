import grpc

from serving.errors import ServingError


def test_message_holds_code_details_and_advice():
    error = ServingError(grpc.StatusCode.NOT_FOUND, "No model 'x'.", "Ask for 'dfn'.")
    assert str(error) == "NOT_FOUND: No model 'x'. Ask for 'dfn'."
    assert (error.code, error.details) == (grpc.StatusCode.NOT_FOUND, "No model 'x'.")


def test_no_advice_leaves_no_trailing_space():
    assert str(ServingError(grpc.StatusCode.ABORTED, "Gone.")) == "ABORTED: Gone."
