/** The contract, loaded from its protobuf files, with the types that the build generates from them; what a program is told. */

import path from "node:path";

import * as grpc from "@grpc/grpc-js";
import * as loader from "@grpc/proto-loader";

import type { ProtoGrpcType as Broker } from "./generated/broker";
import type { Status__Output as RpcStatus } from "./generated/google/rpc/Status";
import type { Record } from "./generated/oncelog/v1/Record";
import type { SendFailure__Output as SendFailure } from "./generated/oncelog/v1/SendFailure";
import type { ProtoGrpcType as Producer } from "./generated/producer";

const root = path.join(__dirname, "../../..");
const definition = loader.loadSync(["oncelog/v1/broker.proto", "oncelog/v1/producer.proto", "google/rpc/status.proto"], {
  includeDirs: [path.join(root, "proto"), path.join(root, "clients/third_party")],
  // Sequences and offsets are counted from 0: no log reaches 2^53.
  longs: Number,
  enums: String,
  defaults: true,
  oneofs: true,
});

export const { BrokerService, ProducerService } = (grpc.loadPackageDefinition(definition) as unknown as Broker & Producer).oncelog.v1;

function decode<Message>(type: string, bytes: Uint8Array): Message {
  const message = definition[type] as loader.MessageTypeDefinition<object, object>;
  return message.deserialize(Buffer.from(bytes)) as Message;
}

/** What a failed Send says of its records, if it says anything. */
export function sendFailure(error: grpc.ServiceError): SendFailure | undefined {
  const [details] = error.metadata.get("grpc-status-details-bin");
  if (!(details instanceof Buffer)) return undefined;
  const status = decode<RpcStatus>("google.rpc.Status", details);
  for (const any of status.details as { type_url: string; value: Uint8Array }[]) {
    if (any.type_url.endsWith("/oncelog.v1.SendFailure")) return decode("oncelog.v1.SendFailure", any.value);
  }
  return undefined;
}

export type Callback<Answer> = (error: grpc.ServiceError | null, answer?: Answer) => void;

/** Makes a call of its own; it ends by its deadline, or when the signal says so. */
export function unary<Answer>(
  timeoutMs: number,
  make: (options: grpc.CallOptions, callback: Callback<Answer>) => grpc.ClientUnaryCall,
  signal?: AbortSignal,
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const call = make({ deadline: Date.now() + timeoutMs }, (error, answer) => {
      signal?.removeEventListener("abort", cancel);
      if (error) reject(error);
      else resolve(answer as Answer);
    });
    const cancel = () => call.cancel();
    signal?.addEventListener("abort", cancel);
  });
}

export function isServiceError(error: unknown): error is grpc.ServiceError {
  return error instanceof Error && "code" in error && "metadata" in error;
}

/** What a program is told by its environment. */
export const assignment = {
  address: (usual: string) => process.env.ONCELOG_ADDRESS ?? usual,
  topic: process.env.ONCELOG_TOPIC ?? "typescript",
  records: Array.from(
    { length: Number(process.env.ONCELOG_RECORDS ?? 100) },
    (_, number): Record => ({ value: Buffer.from(`record ${number}`) }),
  ),
  timeoutMs: Number(process.env.ONCELOG_TIMEOUT_MS ?? 5000),
};

/** Neighbours in groups of ten. */
export function tens<T>(all: T[]): T[][] {
  return Array.from({ length: Math.ceil(all.length / 10) }, (_, index) => all.slice(index * 10, index * 10 + 10));
}
