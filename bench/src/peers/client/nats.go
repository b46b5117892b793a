package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// natsPeer: a partition is a stream with one subject. A stream is what JetStream orders and stores by itself, so it shards by streams; as
// subjects of a single stream, partitions would share one file and one lock.
type natsPeer struct {
	address string
	lanes   uint64
	// The sending lanes' connections.
	connections []*nats.Conn
}

func (p *natsPeer) prepare(l load) error {
	for range p.lanes {
		connection, err := nats.Connect("nats://" + p.address)
		if err != nil {
			return err
		}
		p.connections = append(p.connections, connection)
	}
	js, err := jetstream.New(p.connections[0])
	if err != nil {
		return err
	}
	for partition := range l.partitions {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		_, err := js.CreateStream(ctx, jetstream.StreamConfig{
			Name:     nameOf(partition),
			Subjects: []string{nameOf(partition)},
			Storage:  jetstream.FileStorage,
			// What the server takes if nothing is said: ids of messages are remembered for that long.
			Duplicates: 2 * time.Minute,
		})
		cancel()
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *natsPeer) send(r *run) error {
	return inLanes(p.lanes, func(lane uint64) error {
		js, err := jetstream.New(p.connections[lane],
			jetstream.WithPublishAsyncAckHandler(func(_ jetstream.JetStream, message *nats.Msg, ack *jetstream.PubAck) {
				if ack.Duplicate {
					r.failed(fmt.Errorf("record %d was taken for a duplicate", numberOf(message.Data)))
					return
				}
				r.acknowledged(numberOf(message.Data))
			}),
			jetstream.WithPublishAsyncErrHandler(func(_ jetstream.JetStream, message *nats.Msg, err error) {
				r.failed(fmt.Errorf("record %d: %w", numberOf(message.Data), err))
			}),
			// The run's window bounds what is unacknowledged; the client's own bound must not be lower.
			jetstream.WithPublishAsyncMaxPending(r.load.unacknowledged+1))
		if err != nil {
			return err
		}
		return r.lane(lane, p.lanes, func(partition, number uint64) error {
			message := &nats.Msg{
				Subject: nameOf(partition),
				Header:  nats.Header{jetstream.MsgIDHeader: []string{strconv.FormatUint(number, 10)}},
				Data:    r.load.record(number),
			}
			_, err := js.PublishMsgAsync(message)
			return err
		}, func() error { return nil })
	})
}

func (p *natsPeer) readBack(l load) (uint64, error) {
	js, err := jetstream.New(p.connections[0])
	if err != nil {
		return 0, err
	}
	var verified uint64
	for partition := range l.partitions {
		found, err := p.readPartition(js, l, partition)
		verified += found
		if err != nil {
			return verified, err
		}
	}
	return verified, nil
}

func (p *natsPeer) readPartition(js jetstream.JetStream, l load, partition uint64) (uint64, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	stored, err := js.Stream(ctx, nameOf(partition))
	if err != nil {
		return 0, err
	}
	expected := l.inPartition(partition)
	if found := stored.CachedInfo().State.Msgs; found != expected {
		return 0, fmt.Errorf("partition %d has %d records instead of %d", partition, found, expected)
	}
	consumer, err := stored.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverAllPolicy})
	if err != nil {
		return 0, err
	}
	messages, err := consumer.Messages(jetstream.PullMaxMessages(4096))
	if err != nil {
		return 0, err
	}
	defer messages.Stop()
	for place := range expected {
		message, err := messages.Next(jetstream.NextMaxWait(patience))
		if err != nil {
			return place, err
		}
		if err := l.verify(partition, place, message.Data()); err != nil {
			return place, err
		}
	}
	return expected, nil
}

// What answers at all answers within this time.
const patience = 30 * time.Second
