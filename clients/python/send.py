"""Calls Send, and says of each record whether it is in the log, is not, or nobody knows."""

import os
import time

import grpc
from grpc_status import rpc_status
from oncelog.v1 import broker_pb2, producer_pb2 as v1
from oncelog.v1.producer_pb2_grpc import ProducerServiceStub

ATTEMPTS = 10
# Together with a SendFailure these mean that nothing of the request is in the log.
HARMLESS = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED}


def send(producer: ProducerServiceStub, topic: str, records: list[broker_pb2.Record], timeout: float) -> list[str]:
    """The outcome of each record: "appended OFFSET", "refused WHY" or "unknown".

    A record whose outcome is unknown is in the log once or not at all. It is not sent again here, because that may make two of
    it. Give records an id of your own, in the key or in a header, if a reader has to tell.
    """
    request = v1.SendRequest(topic=topic, records=records)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return [f"appended {record.offset}" for record in producer.Send(request, timeout=timeout).records]
        except grpc.RpcError as error:
            failure = failure_of(error)
            if failure is None:
                # The deadline, a broken connection, a killed service: they all look like this, whatever the code.
                return ["unknown"] * len(records)
            if error.code() not in HARMLESS or attempt == ATTEMPTS:
                return outcomes(failure, len(records))
        time.sleep(0.1 * attempt)
    raise AssertionError("the last attempt returns")


def failure_of(error: grpc.RpcError) -> v1.SendFailure | None:
    status = rpc_status.from_call(error)
    for detail in status.details if status else ():
        failure = v1.SendFailure()
        if detail.Unpack(failure):
            return failure
    return None


def outcomes(failure: v1.SendFailure, count: int) -> list[str]:
    # What the failure does not speak of is unknown: the list may be cut.
    told = ["unknown"] * count
    for outcome in failure.outcomes:
        for index in range(outcome.count):
            if outcome.HasField("appended"):
                # -1: nobody knows where any of them is.
                offset = outcome.appended.offset
                told[outcome.first_index + index] = f"appended {offset + index if offset >= 0 else offset}"
            elif outcome.HasField("refused"):
                told[outcome.first_index + index] = f"refused {outcome.refused.message}"
    return told


def main() -> None:
    address, topic = os.getenv("ONCELOG_ADDRESS", "127.0.0.1:50052"), os.getenv("ONCELOG_TOPIC", "python")
    count, timeout = int(os.getenv("ONCELOG_RECORDS", "100")), int(os.getenv("ONCELOG_TIMEOUT_MS", "5000")) / 1000
    records = [broker_pb2.Record(value=f"record {number}".encode()) for number in range(count)]
    # The library must not send anything again on its own.
    with grpc.insecure_channel(address, options=[("grpc.enable_retries", 0)]) as channel:
        producer = ProducerServiceStub(channel)
        for start in range(0, count, 10):
            for number, outcome in enumerate(send(producer, topic, records[start : start + 10], timeout), start):
                print(number, outcome)


if __name__ == "__main__":
    main()
