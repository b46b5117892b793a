// Calls Send, and says of each record whether it is in the log, is not, or nobody knows.
package main

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"log"
	"os"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"oncelog.example/clients/oncelogv1"
)

const attempts = 10

// send returns the outcome of each record: "appended OFFSET", "refused WHY" or "unknown".
//
// A record whose outcome is unknown is in the log once or not at all. It is not sent again here, because that may make two of it.
// Give records an id of your own, in the key or in a header, if a reader has to tell.
func send(ctx context.Context, producer oncelogv1.ProducerServiceClient, request *oncelogv1.SendRequest, timeout time.Duration) []string {
	told := make([]string, len(request.GetRecords()))
	for attempt := 1; ; attempt++ {
		call, cancel := context.WithTimeout(ctx, timeout)
		response, err := producer.Send(call, request)
		cancel()
		if err == nil {
			for index, record := range response.GetRecords() {
				told[index] = fmt.Sprint("appended ", record.GetOffset())
			}
			return told
		}
		// What nobody speaks of is unknown: the list of a failure may be cut. Without one all are: the deadline, a broken
		// connection, a killed service, they all look alike, whatever the code.
		for index := range told {
			told[index] = "unknown"
		}
		failure := failureOf(err)
		if failure == nil {
			return told
		}
		// Together with a SendFailure these two mean that nothing of the request is in the log.
		code := status.Code(err)
		if (code == codes.Unavailable || code == codes.ResourceExhausted) && attempt < attempts {
			select {
			case <-ctx.Done():
				return told
			case <-time.After(time.Duration(attempt) * 100 * time.Millisecond):
			}
			continue
		}
		for _, outcome := range failure.GetOutcomes() {
			for index := range outcome.GetCount() {
				record := outcome.GetFirstIndex() + index
				if appended := outcome.GetAppended(); appended != nil {
					offset := appended.GetOffset()
					if offset >= 0 { // -1: nobody knows where any of them is
						offset += int64(index)
					}
					told[record] = fmt.Sprint("appended ", offset)
				} else if refused := outcome.GetRefused(); refused != nil {
					told[record] = "refused " + refused.GetMessage()
				}
			}
		}
		return told
	}
}

func failureOf(err error) *oncelogv1.SendFailure {
	for _, detail := range status.Convert(err).Details() {
		if failure, ok := detail.(*oncelogv1.SendFailure); ok {
			return failure
		}
	}
	return nil
}

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

// run sends the records. It fails after it has told what it knows.
func run(ctx context.Context) (err error) {
	count, err := strconv.Atoi(cmp.Or(os.Getenv("ONCELOG_RECORDS"), "100"))
	timeout, err2 := strconv.Atoi(cmp.Or(os.Getenv("ONCELOG_TIMEOUT_MS"), "5000"))
	if err := cmp.Or(err, err2); err != nil {
		return err
	}
	// The library must not send anything again on its own.
	conn, err := grpc.NewClient(cmp.Or(os.Getenv("ONCELOG_ADDRESS"), "127.0.0.1:50052"),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDisableRetry())
	if err != nil {
		return err
	}
	defer conn.Close()

	producer := oncelogv1.NewProducerServiceClient(conn)
	out := bufio.NewWriter(os.Stdout)
	defer func() { err = cmp.Or(err, out.Flush()) }()
	for start := 0; start < count; start += 10 {
		request := &oncelogv1.SendRequest{Topic: cmp.Or(os.Getenv("ONCELOG_TOPIC"), "go")}
		for number := start; number < min(start+10, count); number++ {
			request.Records = append(request.Records, &oncelogv1.Record{Value: fmt.Appendf(nil, "record %d", number)})
		}
		for index, outcome := range send(ctx, producer, request, time.Duration(timeout)*time.Millisecond) {
			fmt.Fprintln(out, start+index, outcome)
		}
	}
	return nil
}
