/**
 * An idempotent producer: every record is in the log once and in order, whatever fails on the way.
 *
 * Each batch gets a tag, which is the producer's id and epoch and the sequence of its first record. A tag is for ever: a batch
 * whose outcome is not known is sent again, unchanged, and the broker recognises it. When sending again does not help, a recovery
 * tells what is in the log, and only what certainly is not gets a new tag. The numbers R1 to R13 are those of proto/RULES.md.
 */

import { randomBytes } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";

import { credentials, status } from "@grpc/grpc-js";

import { BrokerService, assignment, isServiceError, tens, unary } from "./contract";
import type { BatchResult__Output as BatchResult } from "./generated/oncelog/v1/BatchResult";
import type { BrokerServiceClient } from "./generated/oncelog/v1/BrokerService";
import type { InitProducerIdRequest } from "./generated/oncelog/v1/InitProducerIdRequest";
import type { InitProducerIdResponse__Output as InitProducerIdResponse } from "./generated/oncelog/v1/InitProducerIdResponse";
import type { ProduceResponse__Output as ProduceResponse } from "./generated/oncelog/v1/ProduceResponse";
import type { Record } from "./generated/oncelog/v1/Record";

const WINDOW = 5;

export type Outcome =
  | { is: "appended"; offset: number } // -1: the broker has forgotten where
  | { is: "refused"; why: string }
  | { is: "unknown" }; // in the log at most once; nobody will ever know

/**
 * What an answer means. "again": in doubt, or not now: the same batch, unchanged. "recover": only a recovery can tell what is in
 * the log. "shared": somebody else writes with this id.
 */
type Verdict = "resolved" | "again" | "recover" | "shared";

export class Batch {
  outcome?: Outcome;
  base = 0;
  attempts = 0;
  refusal?: string;

  constructor(readonly records: Record[]) {}

  get end(): number {
    return this.base + this.records.length;
  }
}

/** Writes to one partition. */
export class IdempotentProducer {
  private id = 0;
  private epoch = 0;
  private next = 0;
  private acknowledged = 0; // the highest end of a batch that was, in this epoch
  private readonly token = randomBytes(16).toString("hex"); // R13: of this process alone
  // R1: at most five tagged batches from the lowest unresolved one on, resolved ones in between included.
  private window: Batch[] = [];
  // Both end with their epoch, so no answer is taken for that of another (R6).
  private calls = new Map<Batch, Promise<[Batch, Verdict]>>();
  private ended = new AbortController();

  constructor(
    private readonly broker: BrokerServiceClient,
    private readonly topic: string,
    private readonly partition = 0,
    private readonly timeoutMs = 5000,
  ) {}

  /** Yields the batches in their order, each when its outcome is known. */
  async *write(batches: Iterable<Batch>): AsyncGenerator<Batch> {
    const waiting = batches[Symbol.iterator]();
    await this.freshId();
    try {
      for (;;) {
        while (this.window[0]?.outcome) yield this.window.shift()!;
        while (this.window.length < WINDOW) {
          const { value: batch, done } = waiting.next();
          if (done) break;
          this.window.push(batch);
          this.tagAndSend(batch);
        }
        if (this.window.length === 0) return;
        const [batch, verdict] = await Promise.race(this.calls.values());
        this.calls.delete(batch);
        if (verdict === "resolved") this.acknowledged = Math.max(this.acknowledged, batch.end);
        if (verdict === "recover") await this.recover();
        if (verdict === "shared") await this.loseId();
        if (verdict === "again") {
          batch.attempts += 1;
          this.send(batch);
        }
      }
    } finally {
      this.endEpoch();
    }
  }

  private tagAndSend(batch: Batch): void {
    batch.base = this.next;
    batch.attempts = 0;
    this.next = batch.end;
    this.send(batch);
  }

  private send(batch: Batch): void {
    // R7: all below the floor was known to be in the log when this call was made.
    const floor = this.window.find((batch) => !batch.outcome)!.base;
    const answered = this.produce(batch, floor, this.ended.signal).catch((): Verdict => "again");
    this.calls.set(batch, answered.then((verdict) => [batch, verdict]));
  }

  private async produce(batch: Batch, floor: number, signal: AbortSignal): Promise<Verdict> {
    if (batch.attempts > 0) await sleep(backoffMs(batch.attempts), undefined, { signal });
    const tagged = { topic: this.topic, partition: this.partition, baseSequence: batch.base, records: batch.records };
    const request = { producerId: this.id, producerEpoch: this.epoch, batches: [tagged] };
    try {
      const answer = await unary<ProduceResponse>(
        this.timeoutMs,
        (options, callback) => this.broker.produce(request, options, callback),
        signal,
      );
      return judge(batch, floor, answer.results[0]);
    } catch (error) {
      if (signal.aborted || !isServiceError(error) || !REFUSING_STATUS.has(error.code)) return "again";
      batch.refusal = error.details;
      return "recover";
    }
  }

  /** Fences all that is on its way, and learns what of it is in the log (R2, R8). */
  private async recover(): Promise<void> {
    this.endEpoch();
    const answer = await this.init({ producerId: this.id, producerEpoch: this.epoch, recoveryToken: this.token });
    if (!answer) return this.loseId();
    const told = answer.partitions.find((p) => p.topic === this.topic && p.partition === this.partition);
    const next = told?.nextSequence ?? 0; // R3: absent means that nothing of this epoch is there
    if (next < this.acknowledged) {
      throw new Error(`acknowledged records are gone: ${this.topic}/${this.partition} from sequence ${next} on`);
    }
    if (next > this.next) return this.loseId();
    this.begin(answer);
    for (const batch of this.window.filter((batch) => !batch.outcome)) {
      if (batch.end <= next) {
        const entry = told?.window.find((entry) => entry.baseSequence === batch.base);
        batch.outcome = { is: "appended", offset: entry?.baseOffset ?? -1 };
      } else if (batch.refusal !== undefined) {
        batch.outcome = { is: "refused", why: batch.refusal }; // R5: now it is final
      } else {
        this.tagAndSend(batch);
      }
    }
  }

  /** Whatever was sent under this id is in the log at most once, and nobody will ever know (R10). */
  private async loseId(): Promise<void> {
    this.endEpoch();
    for (const batch of this.window) batch.outcome ??= { is: "unknown" };
    await this.freshId();
  }

  private async freshId(): Promise<void> {
    const answer = await this.init({});
    if (!answer) throw new Error("the broker hands out no producer id");
    this.begin(answer);
  }

  /** R9: the only place where an epoch is learned. */
  private begin({ producerId, producerEpoch }: InitProducerIdResponse): void {
    [this.id, this.epoch, this.next, this.acknowledged] = [producerId, producerEpoch, 0, 0];
  }

  /** Repeats the same question until it is answered. Undefined: the id expired, or another process recovered it. */
  private async init(request: InitProducerIdRequest): Promise<InitProducerIdResponse | undefined> {
    for (let attempts = 1; ; attempts++) {
      try {
        // A producer that writes to one partition gets its answer in one page.
        return await unary<InitProducerIdResponse>(this.timeoutMs, (options, callback) =>
          this.broker.initProducerId(request, options, callback),
        );
      } catch (error) {
        if (!isServiceError(error) || error.code === status.INVALID_ARGUMENT) throw error;
        if (error.code === status.NOT_FOUND || error.code === status.FAILED_PRECONDITION) return undefined;
      }
      await sleep(backoffMs(attempts));
    }
  }

  private endEpoch(): void {
    this.ended.abort();
    this.ended = new AbortController();
    this.calls.clear();
  }
}

/** Whatever is not clearly an answer leaves the batch in doubt. */
function judge(batch: Batch, floor: number, result?: BatchResult): Verdict {
  if (result?.ack) {
    batch.outcome = { is: "appended", offset: result.ack.baseOffset };
    return "resolved";
  }
  const error = result?.error;
  if (!error) return "again";
  const expected = error.expectedSequence ?? batch.base;
  switch (error.code) {
    case "ERROR_CODE_DUPLICATE_SEQUENCE_NUMBER":
      batch.outcome = { is: "appended", offset: -1 };
      return "resolved";
    case "ERROR_CODE_OUT_OF_ORDER_SEQUENCE_NUMBER":
      if (expected < floor) return "recover";
      if (batch.base < expected && expected < batch.end) return "shared";
      return "again"; // its predecessors are still on their way
    case "ERROR_CODE_SEQUENCE_CONFLICT":
      return "shared";
    case "ERROR_CODE_INVALID_PRODUCER_EPOCH":
    case "ERROR_CODE_UNKNOWN_PRODUCER_ID":
      return "recover";
    case "ERROR_CODE_REQUEST_TIMED_OUT":
    case "ERROR_CODE_BROKER_NOT_AVAILABLE":
    case "ERROR_CODE_KAFKA_STORAGE_ERROR":
    case "ERROR_CODE_RESOURCE_EXHAUSTED":
      return "again";
    default: // R5: not final, a copy may be in the log
      batch.refusal = error.message;
      return "recover";
  }
}

const REFUSING_STATUS = new Set([status.INVALID_ARGUMENT, status.OUT_OF_RANGE, status.FAILED_PRECONDITION]);

/** 100 ms, doubled each time, up to 1 s; with 20 % jitter. */
function backoffMs(attempts: number): number {
  return Math.min(1000, 50 * 2 ** attempts) * (0.8 + 0.4 * Math.random());
}

/** What the outcome of a batch is to one of its records. */
function describe(outcome: Outcome, index: number): string {
  switch (outcome.is) {
    case "appended":
      return `appended ${outcome.offset < 0 ? outcome.offset : outcome.offset + index}`;
    case "refused":
      return `refused ${outcome.why}`;
    case "unknown":
      return "unknown";
  }
}

async function main(): Promise<void> {
  const { address, topic, records, timeoutMs } = assignment;
  const broker = new BrokerService(address("127.0.0.1:50051"), credentials.createInsecure(), { "grpc.enable_retries": 0 });
  const batches = tens(records).map((records) => new Batch(records));
  let number = 0;
  try {
    for await (const { records, outcome } of new IdempotentProducer(broker, topic, 0, timeoutMs).write(batches)) {
      records.forEach((_, index) => console.log(number++, describe(outcome!, index)));
    }
  } finally {
    broker.close();
  }
}

void main();
