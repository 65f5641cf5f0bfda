"""What is an outage of the broker, and no mistake of ours."""

import pytest
from kombu import Connection
from redis import exceptions

from worker.broker import use_patient_transport


@pytest.mark.parametrize("error", [exceptions.OutOfMemoryError, exceptions.ReadOnlyError, exceptions.TimeoutError])
def test_a_redis_that_refuses_to_write_is_waited_for(error: type[Exception]) -> None:
    use_patient_transport()

    assert issubclass(error, Connection("redis://127.0.0.1:1").recoverable_connection_errors)
