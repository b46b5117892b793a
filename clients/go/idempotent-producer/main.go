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
	"google.golang.org/grpc/credentials/insecure"

	"oncelog.example/clients/oncelogv1"
)

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

// run writes the records. It fails after it has told what it knows.
func run(ctx context.Context) (err error) {
	count, err := strconv.Atoi(cmp.Or(os.Getenv("ONCELOG_RECORDS"), "100"))
	timeout, err2 := strconv.Atoi(cmp.Or(os.Getenv("ONCELOG_TIMEOUT_MS"), "5000"))
	if err := cmp.Or(err, err2); err != nil {
		return err
	}
	conn, err := grpc.NewClient(cmp.Or(os.Getenv("ONCELOG_ADDRESS"), "127.0.0.1:50051"),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDisableRetry())
	if err != nil {
		return err
	}
	defer conn.Close()

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	batches := make(chan *Batch)
	go func() {
		defer close(batches)
		for start := 0; start < count; start += 10 {
			batch := &Batch{}
			for number := start; number < min(start+10, count); number++ {
				batch.Records = append(batch.Records, &oncelogv1.Record{Value: fmt.Appendf(nil, "record %d", number)})
			}
			select {
			case batches <- batch:
			case <-ctx.Done():
				return
			}
		}
	}()

	out := bufio.NewWriter(os.Stdout)
	defer func() { err = cmp.Or(err, out.Flush()) }()
	number := 0
	tell := func(batch *Batch) {
		for index := range batch.Records {
			switch batch.Outcome {
			case Appended:
				fmt.Fprintln(out, number, "appended", offset(batch.Offset, index))
			case Refused:
				fmt.Fprintln(out, number, "refused", batch.Refusal)
			default:
				fmt.Fprintln(out, number, "unknown")
			}
			number++
		}
	}
	producer := &Producer{
		Broker:  oncelogv1.NewBrokerServiceClient(conn),
		Topic:   cmp.Or(os.Getenv("ONCELOG_TOPIC"), "go"),
		Timeout: time.Duration(timeout) * time.Millisecond,
	}
	return producer.Run(ctx, batches, tell)
}

// offset is where the record of an index is, if it is known where its batch is.
func offset(base int64, index int) int64 {
	if base < 0 {
		return base
	}
	return base + int64(index)
}
