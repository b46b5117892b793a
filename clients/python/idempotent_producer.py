"""An idempotent producer: every record is in the log once and in order, whatever fails on the way.

Each batch gets a tag, which is the producer's id and epoch and the sequence of its first record. A tag is for ever: a batch whose
outcome is not known is sent again, unchanged, and the broker recognises it. When sending again does not help, a recovery tells
what is in the log, and only what certainly is not gets a new tag. The numbers R1 to R13 are those of proto/RULES.md.
"""

import asyncio
import os
import random
import secrets
from collections import deque
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from enum import Enum, auto

import grpc
from oncelog.v1 import broker_pb2 as v1
from oncelog.v1.broker_pb2_grpc import BrokerServiceStub

WINDOW = 5
NOT_NOW = {
    v1.ERROR_CODE_REQUEST_TIMED_OUT, v1.ERROR_CODE_BROKER_NOT_AVAILABLE,
    v1.ERROR_CODE_KAFKA_STORAGE_ERROR, v1.ERROR_CODE_RESOURCE_EXHAUSTED,
}
REFUSING_STATUS = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.OUT_OF_RANGE, grpc.StatusCode.FAILED_PRECONDITION}


class Verdict(Enum):
    RESOLVED = auto()
    AGAIN = auto()  # in doubt, or not now: the same batch, unchanged
    RECOVER = auto()  # only a recovery can tell what is in the log
    SHARED = auto()  # somebody else writes with this id


@dataclass
class Batch:
    records: list[v1.Record]
    base: int = 0
    attempts: int = 0
    refusal: str = ""
    outcome: str = ""  # "appended OFFSET", "refused WHY", "unknown"; empty until it is known

    @property
    def end(self) -> int:
        return self.base + len(self.records)


class IdempotentProducer:
    """Writes to one partition. Belongs to one task."""

    def __init__(self, broker: BrokerServiceStub, topic: str, partition: int = 0, timeout: float = 5.0):
        self.broker, self.topic, self.partition, self.timeout = broker, topic, partition, timeout
        self.id, self.epoch, self.next = 0, 0, 0
        self.acknowledged = 0  # the highest end of a batch that was, in this epoch
        self.token = secrets.token_hex(16)  # R13: of this process alone
        # R1: at most five tagged batches from the lowest unresolved one on, resolved ones in between included.
        self.window: deque[Batch] = deque()
        self.calls: dict[asyncio.Task[Verdict], Batch] = {}

    async def write(self, batches: Iterable[Batch]) -> AsyncIterator[Batch]:
        """Yields the batches in their order, each when its outcome is known."""
        waiting = iter(batches)
        await self._begin_anew()
        try:
            while True:
                while self.window and self.window[0].outcome:
                    yield self.window.popleft()
                while len(self.window) < WINDOW and (batch := next(waiting, None)):
                    self.window.append(batch)
                    self._tag_and_send(batch)
                if not self.window:
                    return
                answered, _ = await asyncio.wait(self.calls, return_when=asyncio.FIRST_COMPLETED)
                await self._hear([(self.calls.pop(call), call.result()) for call in answered])
        finally:
            await self._cancel_calls()

    async def _hear(self, answered: list[tuple[Batch, Verdict]]) -> None:
        verdicts = {verdict for _, verdict in answered}
        for batch, verdict in answered:
            if verdict is Verdict.RESOLVED:
                self.acknowledged = max(self.acknowledged, batch.end)
        if Verdict.SHARED in verdicts:
            await self._lose_id()
        elif Verdict.RECOVER in verdicts:
            await self._recover()
        else:
            for batch, verdict in answered:
                if verdict is Verdict.AGAIN:
                    batch.attempts += 1
                    self._send(batch)

    def _tag_and_send(self, batch: Batch) -> None:
        batch.base, batch.attempts = self.next, 0
        self.next = batch.end
        self._send(batch)

    def _send(self, batch: Batch) -> None:
        self.calls[asyncio.create_task(self._produce(batch))] = batch

    async def _produce(self, batch: Batch) -> Verdict:
        if batch.attempts:
            await asyncio.sleep(backoff(batch.attempts))
        # R7: all below the floor was known to be in the log when this call was made.
        floor = next(unresolved.base for unresolved in self.window if not unresolved.outcome)
        tagged = v1.Batch(topic=self.topic, partition=self.partition, base_sequence=batch.base, records=batch.records)
        request = v1.ProduceRequest(producer_id=self.id, producer_epoch=self.epoch, batches=[tagged])
        try:
            answer = await self.broker.Produce(request, timeout=self.timeout)
        except grpc.aio.AioRpcError as error:
            if error.code() not in REFUSING_STATUS:
                return Verdict.AGAIN
            batch.refusal = error.details() or error.code().name
            return Verdict.RECOVER
        return judge(batch, floor, answer.results[0]) if answer.results else Verdict.AGAIN

    async def _recover(self) -> None:
        """Fences all that is on its way, and learns what of it is in the log (R2, R8)."""
        await self._cancel_calls()
        question = v1.InitProducerIdRequest(producer_id=self.id, producer_epoch=self.epoch, recovery_token=self.token)
        answer = await self._init(question)
        if answer is None:
            return await self._lose_id()
        mine = (p for p in answer.partitions if (p.topic, p.partition) == (self.topic, self.partition))
        told = next(mine, v1.InitProducerIdResponse.Partition())  # R3: absent means that nothing of this epoch is there
        if told.next_sequence < self.acknowledged:
            where = f"{self.topic}/{self.partition} from sequence {told.next_sequence} on"
            raise RuntimeError(f"acknowledged records are gone: {where}")
        if told.next_sequence > self.next:
            return await self._lose_id()
        offsets = {entry.base_sequence: entry.base_offset for entry in told.window}
        self._begin(answer)
        for batch in [batch for batch in self.window if not batch.outcome]:
            if batch.end <= told.next_sequence:
                batch.outcome = f"appended {offsets.get(batch.base, -1)}"
            elif batch.refusal:
                batch.outcome = f"refused {batch.refusal}"  # R5: now it is final
            else:
                self._tag_and_send(batch)

    async def _lose_id(self) -> None:
        """R10: whatever was sent under this id is in the log at most once, and nobody will ever know."""
        await self._cancel_calls()
        for batch in self.window:
            batch.outcome = batch.outcome or "unknown"
        await self._begin_anew()

    async def _begin_anew(self) -> None:
        answer = await self._init(v1.InitProducerIdRequest())
        if answer is None:
            raise RuntimeError("the broker hands out no producer id")
        self._begin(answer)

    def _begin(self, answer: v1.InitProducerIdResponse) -> None:
        """R9: the only place where an epoch is learned."""
        self.id, self.epoch, self.next, self.acknowledged = answer.producer_id, answer.producer_epoch, 0, 0

    async def _init(self, request: v1.InitProducerIdRequest) -> v1.InitProducerIdResponse | None:
        """Repeats the same question until it is answered. None: the id expired, or another process recovered it."""
        attempts = 0
        while True:
            try:
                # A producer that writes to one partition gets its answer in one page.
                return await self.broker.InitProducerId(request, timeout=self.timeout)
            except grpc.aio.AioRpcError as error:
                if error.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION):
                    return None
                if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
                    raise
            attempts += 1
            await asyncio.sleep(backoff(attempts))

    async def _cancel_calls(self) -> None:
        calls, self.calls = self.calls, {}
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)


def judge(batch: Batch, floor: int, result: v1.BatchResult) -> Verdict:
    if result.HasField("ack"):
        batch.outcome = f"appended {result.ack.base_offset}"
        return Verdict.RESOLVED
    if not result.HasField("error"):
        return Verdict.AGAIN  # it says nothing
    error = result.error
    match error.code:
        case v1.ERROR_CODE_DUPLICATE_SEQUENCE_NUMBER:
            batch.outcome = "appended -1"  # in the log; where is forgotten
            return Verdict.RESOLVED
        case v1.ERROR_CODE_OUT_OF_ORDER_SEQUENCE_NUMBER if error.expected_sequence < floor:
            return Verdict.RECOVER
        case v1.ERROR_CODE_OUT_OF_ORDER_SEQUENCE_NUMBER if batch.base < error.expected_sequence < batch.end:
            return Verdict.SHARED
        case v1.ERROR_CODE_OUT_OF_ORDER_SEQUENCE_NUMBER:
            return Verdict.AGAIN  # its predecessors are still on their way
        case v1.ERROR_CODE_SEQUENCE_CONFLICT:
            return Verdict.SHARED
        case v1.ERROR_CODE_INVALID_PRODUCER_EPOCH | v1.ERROR_CODE_UNKNOWN_PRODUCER_ID:
            return Verdict.RECOVER
        case code if code in NOT_NOW:
            return Verdict.AGAIN
    batch.refusal = error.message or f"error code {error.code}"  # R5: not final, a copy may be in the log
    return Verdict.RECOVER


def backoff(attempts: int) -> float:
    """Seconds: 0.1, doubled each time, up to 1; with 20 % jitter."""
    return min(1.0, 0.05 * 2 ** min(attempts, 5)) * random.uniform(0.8, 1.2)


async def main() -> None:
    address, topic = os.getenv("ONCELOG_ADDRESS", "127.0.0.1:50051"), os.getenv("ONCELOG_TOPIC", "python")
    count, timeout = int(os.getenv("ONCELOG_RECORDS", "100")), int(os.getenv("ONCELOG_TIMEOUT_MS", "5000")) / 1000
    records = [v1.Record(value=f"record {number}".encode()) for number in range(count)]
    batches = [Batch(records[start : start + 10]) for start in range(0, count, 10)]
    async with grpc.aio.insecure_channel(address, options=[("grpc.enable_retries", 0)]) as channel:
        number = 0
        async for batch in IdempotentProducer(BrokerServiceStub(channel), topic, timeout=timeout).write(batches):
            for index in range(len(batch.records)):
                print(number, each(batch.outcome, index))
                number += 1


def each(outcome: str, index: int) -> str:
    """What an outcome of a batch is to one of its records."""
    word, _, offset = outcome.partition(" ")
    return f"appended {int(offset) + index}" if word == "appended" and offset != "-1" else outcome


if __name__ == "__main__":
    asyncio.run(main())
