package oncelog.clients;

import static java.util.concurrent.TimeUnit.MILLISECONDS;
import static java.util.concurrent.TimeUnit.NANOSECONDS;

import com.google.common.util.concurrent.ListenableFuture;
import io.grpc.Channel;
import io.grpc.Context;
import io.grpc.ManagedChannel;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import java.security.SecureRandom;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.HexFormat;
import java.util.Iterator;
import java.util.List;
import java.util.Objects;
import java.util.Optional;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.ThreadLocalRandom;
import java.util.function.Consumer;
import oncelog.v1.Broker.BatchError;
import oncelog.v1.Broker.BatchResult;
import oncelog.v1.Broker.InitProducerIdRequest;
import oncelog.v1.Broker.InitProducerIdResponse;
import oncelog.v1.Broker.ProduceRequest;
import oncelog.v1.Broker.ProduceResponse;
import oncelog.v1.Broker.Record;
import oncelog.v1.Broker.WindowEntry;
import oncelog.v1.BrokerServiceGrpc;

/**
 * An idempotent producer: every record is in the log once and in order, whatever fails on the way.
 *
 * <p>Each batch gets a tag, which is the producer's id and epoch and the sequence of its first record. A tag is for ever: a batch
 * whose outcome is not known is sent again, unchanged, and the broker recognises it. When sending again does not help, a recovery
 * tells what is in the log, and only what certainly is not gets a new tag. The numbers R1 to R13 are those of proto/RULES.md.
 *
 * <p>Writes to one partition. Belongs to one thread.
 */
final class IdempotentProducer {
    enum Outcome {
        PENDING,
        /** In the log, at {@link Batch#offset}; at -1: the broker has forgotten where. */
        APPENDED,
        /** Certainly not in the log. */
        REFUSED,
        /** In the log at most once; nobody will ever know. */
        UNKNOWN
    }

    /** Written as a whole. */
    static final class Batch {
        final List<Record> records;
        Outcome outcome = Outcome.PENDING;
        long offset;
        String refusal;

        private long base;
        private int attempts;
        private boolean isOut;
        private long due;

        Batch(List<Record> records) {
            this.records = records;
        }

        private long end() {
            return base + records.size();
        }

        private void resolve(Outcome outcome, long offset) {
            this.outcome = outcome;
            this.offset = offset;
        }
    }

    private record Answer(Batch batch, long floor, ListenableFuture<ProduceResponse> call) {}

    private static final int WINDOW = 5;

    private final BrokerServiceGrpc.BrokerServiceFutureStub broker;
    private final BrokerServiceGrpc.BrokerServiceBlockingStub asking;
    private final String topic;
    private final int partition;
    private final Duration timeout;
    private final String token = randomToken(); // R13: of this process alone
    private long id;
    private int epoch;
    private long next;
    /** The highest end of a batch that was acknowledged in this epoch. */
    private long acknowledged;
    /** R1: at most five tagged batches from the lowest unresolved one on, resolved ones in between included. */
    private final Deque<Batch> window = new ArrayDeque<>();
    /** Both end with their epoch, so no answer is taken for that of another (R6). */
    private Context.CancellableContext calls = Context.current().withCancellation();
    private BlockingQueue<Answer> answers = new LinkedBlockingQueue<>(WINDOW);

    IdempotentProducer(Channel channel, String topic, int partition, Duration timeout) {
        broker = BrokerServiceGrpc.newFutureStub(channel);
        asking = BrokerServiceGrpc.newBlockingStub(channel);
        this.topic = topic;
        this.partition = partition;
        this.timeout = timeout;
    }

    /** Writes the batches, and tells of them in their order, of each when its outcome is known. */
    void write(Iterator<Batch> batches, Consumer<Batch> resolved) throws InterruptedException {
        freshId();
        try {
            while (true) {
                while (!window.isEmpty() && window.getFirst().outcome != Outcome.PENDING) {
                    resolved.accept(window.removeFirst());
                }
                while (window.size() < WINDOW && batches.hasNext()) {
                    window.addLast(batches.next());
                    tag(window.getLast());
                }
                if (window.isEmpty()) {
                    return;
                }
                Answer answer = answers.poll(sendWhatIsDue(), NANOSECONDS);
                if (answer != null) {
                    answer.batch.isOut = false;
                    hear(answer);
                }
            }
        } finally {
            calls.cancel(null);
        }
    }

    private void tag(Batch batch) {
        batch.base = next;
        batch.attempts = 0;
        batch.isOut = false;
        batch.due = System.nanoTime();
        next = batch.end();
    }

    /** Returns how long nothing else is due, in nanoseconds. */
    private long sendWhatIsDue() {
        long wait = Long.MAX_VALUE;
        for (Batch batch : window) {
            if (batch.outcome != Outcome.PENDING || batch.isOut) {
                continue;
            }
            long left = batch.due - System.nanoTime();
            if (left <= 0) {
                send(batch);
            } else {
                wait = Math.min(wait, left);
            }
        }
        return wait;
    }

    private void send(Batch batch) {
        batch.isOut = true;
        var request = ProduceRequest.newBuilder().setProducerId(id).setProducerEpoch(epoch);
        request.addBatchesBuilder()
                .setTopic(topic)
                .setPartition(partition)
                .setBaseSequence(batch.base)
                .addAllRecords(batch.records);
        // R7: all below the floor was known to be in the log when this call was made.
        long floor = window.getFirst().base;
        BlockingQueue<Answer> answers = this.answers;
        calls.run(() -> {
            var call = broker.withDeadlineAfter(timeout).produce(request.build());
            call.addListener(() -> answers.add(new Answer(batch, floor, call)), Runnable::run);
        });
    }

    /** Decides what an answer means. Whatever is not clearly one leaves the batch in doubt: it is sent again, unchanged. */
    private void hear(Answer answer) throws InterruptedException {
        Batch batch = answer.batch;
        ProduceResponse response;
        try {
            response = answer.call.get();
        } catch (ExecutionException failed) {
            Status status = Status.fromThrowable(failed);
            switch (status.getCode()) {
                case INVALID_ARGUMENT, OUT_OF_RANGE, FAILED_PRECONDITION -> refuse(batch, status.getDescription());
                default -> again(batch);
            }
            return;
        }
        BatchResult result = response.getResultsCount() > 0 ? response.getResults(0) : BatchResult.getDefaultInstance();
        switch (result.getOutcomeCase()) {
            case ACK -> acknowledge(batch, result.getAck().getBaseOffset());
            case ERROR -> hear(answer, result.getError());
            case OUTCOME_NOT_SET -> again(batch);
        }
    }

    private void hear(Answer answer, BatchError error) throws InterruptedException {
        Batch batch = answer.batch;
        long expected = error.getExpectedSequence();
        switch (error.getCode()) {
            case ERROR_CODE_DUPLICATE_SEQUENCE_NUMBER -> acknowledge(batch, -1);
            case ERROR_CODE_OUT_OF_ORDER_SEQUENCE_NUMBER -> {
                if (expected < answer.floor) {
                    recover();
                } else if (batch.base < expected && expected < batch.end()) {
                    loseId(); // somebody else writes with this id
                } else {
                    again(batch); // its predecessors are still on their way
                }
            }
            case ERROR_CODE_SEQUENCE_CONFLICT -> loseId();
            case ERROR_CODE_INVALID_PRODUCER_EPOCH, ERROR_CODE_UNKNOWN_PRODUCER_ID -> recover();
            case ERROR_CODE_REQUEST_TIMED_OUT,
                    ERROR_CODE_BROKER_NOT_AVAILABLE,
                    ERROR_CODE_KAFKA_STORAGE_ERROR,
                    ERROR_CODE_RESOURCE_EXHAUSTED -> again(batch);
            default -> refuse(batch, error.getMessage());
        }
    }

    private void acknowledge(Batch batch, long offset) {
        batch.resolve(Outcome.APPENDED, offset);
        acknowledged = Math.max(acknowledged, batch.end());
    }

    private void again(Batch batch) {
        batch.attempts++;
        batch.due = System.nanoTime() + backoff(batch.attempts).toNanos();
    }

    /** Not final: a copy may be in the log (R5). */
    private void refuse(Batch batch, String why) throws InterruptedException {
        batch.refusal = Objects.requireNonNullElse(why, "no reason was given");
        recover();
    }

    /** Fences all that is on its way, and learns what of it is in the log (R2, R8). */
    private void recover() throws InterruptedException {
        endEpoch();
        var question = InitProducerIdRequest.newBuilder().setProducerId(id).setProducerEpoch(epoch).setRecoveryToken(token);
        Optional<InitProducerIdResponse> recovered = init(question.build());
        if (recovered.isEmpty()) {
            loseId();
            return;
        }
        InitProducerIdResponse answer = recovered.get();
        var told = answer.getPartitionsList().stream()
                .filter(p -> p.getTopic().equals(topic) && p.getPartition() == partition)
                .findFirst()
                .orElse(InitProducerIdResponse.Partition.getDefaultInstance()); // R3: absent means nothing of this epoch
        long inLog = told.getNextSequence();
        if (inLog < acknowledged) {
            throw new IllegalStateException(
                    "acknowledged records are gone: %s/%d from sequence %d on".formatted(topic, partition, inLog));
        }
        if (inLog > next) {
            loseId();
            return;
        }
        begin(answer);
        for (Batch batch : window) {
            if (batch.outcome != Outcome.PENDING) {
                continue;
            }
            if (batch.end() <= inLog) {
                batch.resolve(Outcome.APPENDED, told.getWindowList().stream()
                        .filter(entry -> entry.getBaseSequence() == batch.base)
                        .mapToLong(WindowEntry::getBaseOffset)
                        .findFirst()
                        .orElse(-1));
            } else if (batch.refusal != null) {
                batch.outcome = Outcome.REFUSED; // R5: now it is final
            } else {
                tag(batch);
            }
        }
    }

    /** Whatever was sent under this id is in the log at most once, and nobody will ever know (R10). */
    private void loseId() throws InterruptedException {
        endEpoch();
        for (Batch batch : window) {
            if (batch.outcome == Outcome.PENDING) {
                batch.outcome = Outcome.UNKNOWN;
            }
        }
        freshId();
    }

    private void freshId() throws InterruptedException {
        begin(init(InitProducerIdRequest.getDefaultInstance()).orElseThrow());
    }

    /** The only place where an epoch is learned (R9). */
    private void begin(InitProducerIdResponse answer) {
        id = answer.getProducerId();
        epoch = answer.getProducerEpoch();
        next = 0;
        acknowledged = 0;
    }

    /** Repeats the same question until it is answered. Empty: the id expired, or another process recovered it. */
    private Optional<InitProducerIdResponse> init(InitProducerIdRequest question) throws InterruptedException {
        for (int attempts = 1; ; attempts++) {
            try {
                // A producer that writes to one partition gets its answer in one page.
                return Optional.of(asking.withDeadlineAfter(timeout).initProducerId(question));
            } catch (StatusRuntimeException failed) {
                switch (failed.getStatus().getCode()) {
                    case NOT_FOUND, FAILED_PRECONDITION -> {
                        return Optional.empty();
                    }
                    case INVALID_ARGUMENT -> throw failed;
                    default -> MILLISECONDS.sleep(backoff(attempts).toMillis());
                }
            }
        }
    }

    private void endEpoch() {
        calls.cancel(null);
        calls = Context.current().withCancellation();
        answers = new LinkedBlockingQueue<>(WINDOW);
    }

    /** 100 ms, doubled each time, up to 1 s; with 20 % jitter. */
    private static Duration backoff(int attempts) {
        long ms = Math.min(1_000, 50L << Math.min(attempts, 5));
        return Duration.ofMillis((long) (ms * ThreadLocalRandom.current().nextDouble(0.8, 1.2)));
    }

    private static String randomToken() {
        byte[] bytes = new byte[16];
        new SecureRandom().nextBytes(bytes);
        return HexFormat.of().formatHex(bytes);
    }

    public static void main(String[] args) throws InterruptedException {
        var assignment = Assignment.fromEnvironment("127.0.0.1:50051");
        ManagedChannel channel = assignment.channel();
        try {
            var producer = new IdempotentProducer(channel, assignment.topic(), 0, assignment.timeout());
            var number = new int[] {0};
            producer.write(assignment.tens().stream().map(Batch::new).iterator(), batch -> {
                for (int index = 0; index < batch.records.size(); index++) {
                    System.out.println(number[0]++ + " " + switch (batch.outcome) {
                        case APPENDED -> "appended " + (batch.offset < 0 ? -1 : batch.offset + index);
                        case REFUSED -> "refused " + batch.refusal;
                        case UNKNOWN, PENDING -> "unknown";
                    });
                }
            });
        } finally {
            channel.shutdownNow();
        }
    }
}
