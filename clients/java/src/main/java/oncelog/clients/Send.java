package oncelog.clients;

import static java.util.concurrent.TimeUnit.MILLISECONDS;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import io.grpc.ManagedChannel;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Optional;
import oncelog.v1.Broker.Record;
import oncelog.v1.Producer.SendFailure;
import oncelog.v1.Producer.SendRequest;
import oncelog.v1.ProducerServiceGrpc;
import oncelog.v1.ProducerServiceGrpc.ProducerServiceBlockingStub;

/** Calls Send, and says of each record whether it is in the log, is not, or nobody knows. */
final class Send {
    private static final int ATTEMPTS = 10;

    /**
     * The outcome of each record: "appended OFFSET", "refused WHY" or "unknown".
     *
     * <p>A record whose outcome is unknown is in the log once or not at all. It is not sent again here, because that may make two
     * of it. Give records an id of your own, in the key or in a header, if a reader has to tell.
     */
    static List<String> send(ProducerServiceBlockingStub producer, String topic, List<Record> records, Duration timeout)
            throws InterruptedException {
        var request = SendRequest.newBuilder().setTopic(topic).addAllRecords(records).build();
        for (int attempt = 1; ; attempt++) {
            try {
                var sent = producer.withDeadlineAfter(timeout).send(request);
                return sent.getRecordsList().stream().map(record -> "appended " + record.getOffset()).toList();
            } catch (StatusRuntimeException failed) {
                Optional<SendFailure> failure = failureOf(failed);
                if (failure.isEmpty()) {
                    // The deadline, a broken connection, a killed service: they all look alike, whatever the code.
                    return Collections.nCopies(records.size(), "unknown");
                }
                boolean isHarmless = switch (failed.getStatus().getCode()) {
                    // Together with a SendFailure these mean that nothing of the request is in the log.
                    case UNAVAILABLE, RESOURCE_EXHAUSTED -> true;
                    default -> false;
                };
                if (!isHarmless || attempt == ATTEMPTS) {
                    return outcomes(failure.get(), records.size());
                }
            }
            MILLISECONDS.sleep(100L * attempt);
        }
    }

    private static Optional<SendFailure> failureOf(StatusRuntimeException failed) {
        for (Any detail : StatusProto.fromThrowable(failed).getDetailsList()) {
            if (detail.is(SendFailure.class)) {
                try {
                    return Optional.of(detail.unpack(SendFailure.class));
                } catch (InvalidProtocolBufferException unreadable) {
                    return Optional.empty();
                }
            }
        }
        return Optional.empty();
    }

    private static List<String> outcomes(SendFailure failure, int count) {
        // What the failure does not speak of is unknown: its list may be cut.
        List<String> told = new ArrayList<>(Collections.nCopies(count, "unknown"));
        for (var outcome : failure.getOutcomesList()) {
            for (int index = 0; index < outcome.getCount(); index++) {
                int record = outcome.getFirstIndex() + index;
                switch (outcome.getOutcomeCase()) {
                    case APPENDED -> {
                        long offset = outcome.getAppended().getOffset(); // -1: nobody knows where any of them is
                        told.set(record, "appended " + (offset < 0 ? offset : offset + index));
                    }
                    case REFUSED -> told.set(record, "refused " + outcome.getRefused().getMessage());
                    default -> {}
                }
            }
        }
        return told;
    }

    public static void main(String[] args) throws InterruptedException {
        var assignment = Assignment.fromEnvironment("127.0.0.1:50052");
        ManagedChannel channel = assignment.channel();
        try {
            var producer = ProducerServiceGrpc.newBlockingStub(channel);
            int number = 0;
            for (List<Record> records : assignment.tens()) {
                for (String outcome : send(producer, assignment.topic(), records, assignment.timeout())) {
                    System.out.println(number++ + " " + outcome);
                }
            }
        } finally {
            channel.shutdownNow();
        }
    }
}
