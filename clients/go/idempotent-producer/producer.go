// An idempotent producer: every record is in the log once and in order, whatever fails on the way.
//
// Each batch gets a tag, which is the producer's id and epoch and the sequence of its first record. A tag is for ever: a batch
// whose outcome is not known is sent again, unchanged, and the broker recognises it. When sending again does not help, a recovery
// tells what is in the log, and only what certainly is not gets a new tag. The numbers R1 to R13 are those of proto/RULES.md.
package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	mathrand "math/rand/v2"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"oncelog.example/clients/oncelogv1"
)

const window = 5

// Outcome is what became of a batch.
type Outcome int

const (
	Pending  Outcome = iota
	Appended         // it is in the log, at Offset, or at -1 if that is forgotten
	Refused          // it is certainly not in the log
	Unknown          // it is in the log at most once; nobody will ever know
)

// Batch is written as a whole.
type Batch struct {
	Records []*oncelogv1.Record
	Outcome Outcome
	Offset  int64
	Refusal string

	base     int64
	attempts int
}

func (b *Batch) end() int64 { return b.base + int64(len(b.Records)) }

// Producer writes to one partition.
type Producer struct {
	Broker    oncelogv1.BrokerServiceClient
	Topic     string
	Partition int32
	Timeout   time.Duration

	id    int64
	epoch int32
	next  int64
	// The highest end of a batch that was acknowledged in this epoch.
	acknowledged int64
	token        string
	// R1: at most five tagged batches from the lowest unresolved one on, resolved ones in between included.
	window []*Batch
	// The calls of this epoch. R6: answers of an older one go to a channel that nobody reads any more.
	calls   context.Context
	cancel  context.CancelFunc
	answers chan answer
}

type answer struct {
	batch *Batch
	floor int64 // when the call was made
	resp  *oncelogv1.ProduceResponse
	err   error
}

// Run writes the batches it receives, until there are no more, and tells of them in their order.
func (p *Producer) Run(ctx context.Context, batches <-chan *Batch, resolved func(*Batch)) error {
	p.token = rand.Text() // R13: of this process alone
	p.cancel = func() {}
	defer func() { p.cancel() }()
	if err := p.freshID(ctx); err != nil {
		return err
	}
	for {
		for len(p.window) > 0 && p.window[0].Outcome != Pending {
			resolved(p.window[0])
			p.window = p.window[1:]
		}
		if len(p.window) == 0 && batches == nil {
			return nil
		}
		more := batches
		if len(p.window) == window {
			more = nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case batch, ok := <-more:
			if !ok {
				batches = nil
				continue
			}
			p.window = append(p.window, batch)
			p.tagAndSend(batch)
		case a := <-p.answers:
			if err := p.hear(ctx, a); err != nil {
				return err
			}
		}
	}
}

// hear decides what an answer means. Whatever is not clearly an answer leaves the batch in doubt: it is sent again, unchanged.
func (p *Producer) hear(ctx context.Context, a answer) error {
	switch status.Code(a.err) {
	case codes.OK:
	case codes.InvalidArgument, codes.OutOfRange, codes.FailedPrecondition:
		return p.refuse(ctx, a.batch, status.Convert(a.err).Message())
	default:
		return p.again(a.batch)
	}
	if len(a.resp.GetResults()) == 0 {
		return p.again(a.batch)
	}
	result := a.resp.GetResults()[0]
	if ack := result.GetAck(); ack != nil {
		return p.acknowledge(a.batch, ack.GetBaseOffset())
	}
	if result.GetError() == nil {
		return p.again(a.batch)
	}
	expected := result.GetError().GetExpectedSequence()
	switch result.GetError().GetCode() {
	case oncelogv1.ErrorCode_ERROR_CODE_DUPLICATE_SEQUENCE_NUMBER:
		return p.acknowledge(a.batch, -1)
	case oncelogv1.ErrorCode_ERROR_CODE_OUT_OF_ORDER_SEQUENCE_NUMBER:
		if expected < a.floor {
			return p.recover(ctx)
		}
		if a.batch.base < expected && expected < a.batch.end() {
			return p.loseID(ctx) // somebody else writes with this id
		}
		return p.again(a.batch) // its predecessors are still on their way
	case oncelogv1.ErrorCode_ERROR_CODE_SEQUENCE_CONFLICT:
		return p.loseID(ctx)
	case oncelogv1.ErrorCode_ERROR_CODE_INVALID_PRODUCER_EPOCH, oncelogv1.ErrorCode_ERROR_CODE_UNKNOWN_PRODUCER_ID:
		return p.recover(ctx)
	case oncelogv1.ErrorCode_ERROR_CODE_REQUEST_TIMED_OUT, oncelogv1.ErrorCode_ERROR_CODE_BROKER_NOT_AVAILABLE,
		oncelogv1.ErrorCode_ERROR_CODE_KAFKA_STORAGE_ERROR, oncelogv1.ErrorCode_ERROR_CODE_RESOURCE_EXHAUSTED:
		return p.again(a.batch)
	default:
		return p.refuse(ctx, a.batch, result.GetError().GetMessage())
	}
}

func (p *Producer) acknowledge(batch *Batch, offset int64) error {
	batch.Outcome, batch.Offset = Appended, offset
	p.acknowledged = max(p.acknowledged, batch.end())
	return nil
}

// refuse is not final (R5): a copy may be in the log.
func (p *Producer) refuse(ctx context.Context, batch *Batch, why string) error {
	batch.Refusal = cmp.Or(why, "no reason was given")
	return p.recover(ctx)
}

func (p *Producer) tagAndSend(batch *Batch) {
	batch.base, batch.attempts = p.next, 0
	p.next = batch.end()
	p.send(batch)
}

func (p *Producer) again(batch *Batch) error {
	batch.attempts++
	p.send(batch)
	return nil
}

func (p *Producer) send(batch *Batch) {
	request := &oncelogv1.ProduceRequest{ProducerId: proto.Int64(p.id), ProducerEpoch: p.epoch, Batches: []*oncelogv1.Batch{{
		Topic: p.Topic, Partition: p.Partition, BaseSequence: batch.base, Records: batch.Records,
	}}}
	a := answer{batch: batch, floor: p.floor()}
	calls, answers, pause := p.calls, p.answers, backoff(batch.attempts)
	go func() {
		if sleep(calls, pause) != nil {
			return
		}
		ctx, cancel := context.WithTimeout(calls, p.Timeout)
		defer cancel()
		a.resp, a.err = p.Broker.Produce(ctx, request)
		answers <- a
	}()
}

// floor is the lowest sequence that is not known to be in the log (R7).
func (p *Producer) floor() int64 {
	for _, batch := range p.window {
		if batch.Outcome == Pending {
			return batch.base
		}
	}
	return p.next
}

// recover fences all that is on its way, and learns what of it is in the log (R2, R8).
func (p *Producer) recover(ctx context.Context) error {
	p.cancel()
	told, err := p.init(ctx, &oncelogv1.InitProducerIdRequest{
		ProducerId: proto.Int64(p.id), ProducerEpoch: proto.Int32(p.epoch), RecoveryToken: p.token,
	})
	if code := status.Code(err); code == codes.NotFound || code == codes.FailedPrecondition {
		return p.loseID(ctx)
	} else if err != nil {
		return err
	}
	var next int64 // R3: a partition that is absent holds nothing of this epoch
	offsets := map[int64]int64{}
	for _, partition := range told.GetPartitions() {
		if partition.GetTopic() == p.Topic && partition.GetPartition() == p.Partition {
			next = partition.GetNextSequence()
			for _, entry := range partition.GetWindow() {
				offsets[entry.GetBaseSequence()] = entry.GetBaseOffset()
			}
		}
	}
	if next < p.acknowledged {
		return fmt.Errorf("acknowledged records are gone: %s/%d from sequence %d on", p.Topic, p.Partition, next)
	}
	if next > p.next {
		return p.loseID(ctx)
	}
	p.begin(ctx, told) // R9: the only place where an epoch is learned
	for _, batch := range p.window {
		offset, isRemembered := offsets[batch.base]
		switch {
		case batch.Outcome != Pending:
		case batch.end() <= next && isRemembered:
			batch.Outcome, batch.Offset = Appended, offset
		case batch.end() <= next:
			batch.Outcome, batch.Offset = Appended, -1
		case batch.Refusal != "":
			batch.Outcome = Refused // R5: now it is final
		default:
			p.tagAndSend(batch)
		}
	}
	return nil
}

// loseID gives up the id: whatever was sent under it is in the log at most once, and nobody will ever know (R10).
func (p *Producer) loseID(ctx context.Context) error {
	p.cancel()
	for _, batch := range p.window {
		if batch.Outcome == Pending {
			batch.Outcome = Unknown
		}
	}
	return p.freshID(ctx)
}

func (p *Producer) freshID(ctx context.Context) error {
	told, err := p.init(ctx, &oncelogv1.InitProducerIdRequest{})
	if err == nil {
		p.begin(ctx, told)
	}
	return err
}

func (p *Producer) begin(ctx context.Context, told *oncelogv1.InitProducerIdResponse) {
	p.id, p.epoch, p.next, p.acknowledged = told.GetProducerId(), told.GetProducerEpoch(), 0, 0
	p.calls, p.cancel = context.WithCancel(ctx)
	p.answers = make(chan answer, window)
}

// init repeats the same question until it is answered. A producer that writes to one partition gets its answer in one page.
func (p *Producer) init(ctx context.Context, request *oncelogv1.InitProducerIdRequest) (*oncelogv1.InitProducerIdResponse, error) {
	for attempts := 1; ; attempts++ {
		call, cancel := context.WithTimeout(ctx, p.Timeout)
		told, err := p.Broker.InitProducerId(call, request)
		cancel()
		switch status.Code(err) {
		case codes.OK, codes.NotFound, codes.FailedPrecondition, codes.InvalidArgument:
			return told, err
		}
		if err := sleep(ctx, backoff(attempts)); err != nil {
			return nil, err
		}
	}
}

// backoff is 100 ms, doubled each time, up to 1 s; with 20 % jitter.
func backoff(attempts int) time.Duration {
	if attempts == 0 {
		return 0
	}
	pause := min(time.Second, 50*time.Millisecond<<min(attempts, 5))
	return time.Duration(float64(pause) * (0.8 + 0.4*mathrand.Float64()))
}

func sleep(ctx context.Context, pause time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(pause):
		return nil
	}
}
