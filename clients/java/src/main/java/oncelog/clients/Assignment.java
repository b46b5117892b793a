package oncelog.clients;

import com.google.protobuf.ByteString;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.stream.IntStream;
import oncelog.v1.Broker.Record;

/** What a program is told by its environment. */
record Assignment(String address, String topic, int records, Duration timeout) {
    static Assignment fromEnvironment(String usualAddress) {
        Map<String, String> environment = System.getenv();
        return new Assignment(
                environment.getOrDefault("ONCELOG_ADDRESS", usualAddress),
                environment.getOrDefault("ONCELOG_TOPIC", "java"),
                Integer.parseInt(environment.getOrDefault("ONCELOG_RECORDS", "100")),
                Duration.ofMillis(Long.parseLong(environment.getOrDefault("ONCELOG_TIMEOUT_MS", "5000"))));
    }

    /** A channel that sends nothing again on its own. */
    ManagedChannel channel() {
        return Grpc.newChannelBuilder(address, InsecureChannelCredentials.create()).disableRetry().build();
    }

    /** The records to send, ten by ten, in order. */
    List<List<Record>> tens() {
        List<List<Record>> tens = new ArrayList<>();
        for (int start = 0; start < records; start += 10) {
            tens.add(IntStream.range(start, Math.min(start + 10, records))
                    .mapToObj(number -> Record.newBuilder().setValue(ByteString.copyFromUtf8("record " + number)).build())
                    .toList());
        }
        return tens;
    }
}
