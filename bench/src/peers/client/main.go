// The client of those peers that have no performance tool which numbers its records and reads them back. Each is driven through its own
// Go client, and by the same loop: same records, same partitions, same number of unacknowledged records.
//
// It speaks with the bench in lines, so that the bench can look at the server between the phases:
//
//	ready                  connected, partitions created; goes on when it hears a line
//	sent {"seconds": ...}  all acknowledged; goes on when it hears a line
//	verified 1000000       read back, each record byte for byte, in order, once
//
// What went wrong stands on stderr, and the exit code is 1.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"syscall"
	"time"
)

// peer is a server's client.
type peer interface {
	// prepare connects, and creates the partitions.
	prepare(load) error
	// send returns when every record was acknowledged.
	send(*run) error
	// readBack returns how many records were found byte for byte, in order, once.
	readBack(load) (uint64, error)
}

// sent is what one sending gave; latencies in nanoseconds, none without a rate.
type sent struct {
	Seconds    float64          `json:"seconds"`
	CPUSeconds float64          `json:"cpu_seconds"`
	LatencyNs  map[string]int64 `json:"latency_ns"`
}

func main() {
	if err := speak(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func speak(args []string, heard io.Reader, said io.Writer) error {
	flags := flag.NewFlagSet("client", flag.ContinueOnError)
	kind := flags.String("peer", "", "nats, redis or rabbitmq")
	address := flags.String("address", "", "host:port of the server")
	connections := flags.Uint64("connections", 1, "connections that send; a partition has one of them")
	var l load
	flags.IntVar(&l.recordBytes, "record-bytes", 1024, "bytes of each record")
	flags.Uint64Var(&l.partitions, "partitions", 8, "record i goes to partition i % partitions")
	flags.Uint64Var(&l.records, "records", 10_000, "how many")
	flags.IntVar(&l.unacknowledged, "unacknowledged", 1000, "records that may be unacknowledged at once")
	flags.Float64Var(&l.rate, "rate", 0, "records a second, latency from when each was due; 0: as fast as it goes")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if err := l.check(); err != nil {
		return err
	}
	if *connections == 0 {
		return fmt.Errorf("connections must be above 0")
	}
	lanes := min(*connections, l.partitions)
	var chosen peer
	switch *kind {
	case "nats":
		chosen = &natsPeer{address: *address, lanes: lanes}
	case "redis":
		chosen = &redisPeer{address: *address, lanes: lanes}
	case "rabbitmq":
		chosen = &rabbitmqPeer{address: *address, lanes: lanes}
	default:
		return fmt.Errorf("peer %q: must be nats, redis or rabbitmq", *kind)
	}

	lines := bufio.NewReader(heard)
	if err := chosen.prepare(l); err != nil {
		return err
	}
	fmt.Fprintln(said, "ready")
	if _, err := lines.ReadString('\n'); err != nil {
		return fmt.Errorf("the bench has gone: %w", err)
	}
	outcome, err := measure(chosen, newRun(l))
	if err != nil {
		return err
	}
	encoded, err := json.Marshal(outcome)
	if err != nil {
		return err
	}
	fmt.Fprintf(said, "sent %s\n", encoded)
	if _, err := lines.ReadString('\n'); err != nil {
		return fmt.Errorf("the bench has gone: %w", err)
	}
	verified, err := chosen.readBack(l)
	if err != nil {
		return fmt.Errorf("read back: %w", err)
	}
	fmt.Fprintf(said, "verified %d\n", verified)
	return nil
}

func measure(chosen peer, r *run) (sent, error) {
	if r.load.rate > 0 {
		// Lanes that sleep until the next record is due keep a processor of the runtime for a while; those who hear the answers must
		// not wait for one.
		runtime.GOMAXPROCS(runtime.NumCPU() + sleepers)
	}
	before := cpuSeconds()
	r.started = time.Now()
	if err := chosen.send(r); err != nil {
		return sent{}, err
	}
	if err := r.drained(); err != nil {
		return sent{}, err
	}
	outcome := sent{Seconds: time.Since(r.started).Seconds(), CPUSeconds: cpuSeconds() - before}
	if r.load.rate > 0 {
		outcome.LatencyNs = map[string]int64{
			"p50":   r.latency.ValueAtQuantile(50),
			"p90":   r.latency.ValueAtQuantile(90),
			"p99":   r.latency.ValueAtQuantile(99),
			"p99_9": r.latency.ValueAtQuantile(99.9),
			"max":   r.latency.Max(),
		}
	}
	return outcome, nil
}

// At least as many as there are lanes, and few enough to cost nothing.
const sleepers = 8

func cpuSeconds() float64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()).Seconds()
}

// inLanes runs send for each lane at once, and returns the first failure.
func inLanes(lanes uint64, send func(lane uint64) error) error {
	outcomes := make(chan error, lanes)
	for lane := range lanes {
		go func() { outcomes <- send(lane) }()
	}
	var first error
	for range lanes {
		if err := <-outcomes; err != nil && first == nil {
			first = err
		}
	}
	return first
}
