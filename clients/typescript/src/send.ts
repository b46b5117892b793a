/** Calls Send, and says of each record whether it is in the log, is not, or nobody knows. */

import { setTimeout as sleep } from "node:timers/promises";

import { credentials, status } from "@grpc/grpc-js";

import { ProducerService, assignment, isServiceError, sendFailure, tens, unary } from "./contract";
import type { ProducerServiceClient } from "./generated/oncelog/v1/ProducerService";
import type { Record } from "./generated/oncelog/v1/Record";
import type { SendFailure__Output as SendFailure } from "./generated/oncelog/v1/SendFailure";
import type { SendResponse__Output as SendResponse } from "./generated/oncelog/v1/SendResponse";

const ATTEMPTS = 10;
/** Together with a SendFailure these mean that nothing of the request is in the log. */
const HARMLESS = new Set([status.UNAVAILABLE, status.RESOURCE_EXHAUSTED]);

/**
 * The outcome of each record: "appended OFFSET", "refused WHY" or "unknown".
 *
 * A record whose outcome is unknown is in the log once or not at all. It is not sent again here, because that may make two of it.
 * Give records an id of your own, in the key or in a header, if a reader has to tell.
 */
async function send(producer: ProducerServiceClient, topic: string, records: Record[], timeoutMs: number): Promise<string[]> {
  for (let attempt = 1; ; attempt++) {
    try {
      const sent = await unary<SendResponse>(timeoutMs, (options, callback) =>
        producer.send({ topic, records }, options, callback),
      );
      return sent.records.map((record) => `appended ${record.offset}`);
    } catch (error) {
      if (!isServiceError(error)) throw error;
      const failure = sendFailure(error);
      // The deadline, a broken connection, a killed service: they all look alike, whatever the code.
      if (!failure) return records.map(() => "unknown");
      if (!HARMLESS.has(error.code) || attempt === ATTEMPTS) return outcomes(failure, records.length);
    }
    await sleep(100 * attempt);
  }
}

function outcomes(failure: SendFailure, count: number): string[] {
  // What the failure does not speak of is unknown: its list may be cut.
  const told = new Array<string>(count).fill("unknown");
  for (const { firstIndex, count, appended, refused } of failure.outcomes) {
    for (let index = 0; index < count; index++) {
      // -1: nobody knows where any of them is.
      if (appended) told[firstIndex + index] = `appended ${appended.offset < 0 ? appended.offset : appended.offset + index}`;
      if (refused) told[firstIndex + index] = `refused ${refused.message}`;
    }
  }
  return told;
}

async function main(): Promise<void> {
  const { address, topic, records, timeoutMs } = assignment;
  // The library must not send anything again on its own.
  const producer = new ProducerService(address("127.0.0.1:50052"), credentials.createInsecure(), { "grpc.enable_retries": 0 });
  let number = 0;
  try {
    for (const ten of tens(records)) {
      for (const outcome of await send(producer, topic, ten, timeoutMs)) console.log(number++, outcome);
    }
  } finally {
    producer.close();
  }
}

void main();
