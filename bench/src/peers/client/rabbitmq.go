package main

import (
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/rabbitmq/rabbitmq-stream-go-client/pkg/amqp"
	"github.com/rabbitmq/rabbitmq-stream-go-client/pkg/stream"
)

// rabbitmqPeer: a partition is a stream, as those of a super stream are. Each has a producer with a name, and every record a publishing
// id: both together make the server drop what it has already.
type rabbitmqPeer struct {
	address     string
	lanes       uint64
	environment *stream.Environment
	producers   []*stream.Producer
	confirmed   []stream.ChannelPublishConfirm
}

func (p *rabbitmqPeer) prepare(l load) error {
	host, portText, err := net.SplitHostPort(p.address)
	if err != nil {
		return err
	}
	port, err := strconv.Atoi(portText)
	if err != nil {
		return err
	}
	perConnection := min(maxPerConnection, int((l.partitions+p.lanes-1)/p.lanes))
	p.environment, err = stream.NewEnvironment(stream.NewEnvironmentOptions().SetHost(host).SetPort(port).
		SetMaxProducersPerClient(perConnection).SetMaxConsumersPerClient(maxPerConnection).
		SetReadBuffer(socketBufferBytes).SetWriteBuffer(socketBufferBytes))
	if err != nil {
		return err
	}
	for partition := range l.partitions {
		name := nameOf(partition)
		if err := p.environment.DeclareStream(name, stream.NewStreamOptions()); err != nil {
			return err
		}
		producer, err := p.environment.NewProducer(name, stream.NewProducerOptions().SetProducerName(name).
			SetConfirmationTimeOut(patience))
		if err != nil {
			return err
		}
		p.producers = append(p.producers, producer)
		p.confirmed = append(p.confirmed, producer.NotifyPublishConfirmation())
	}
	return nil
}

// One loop sends for all producers: each of them has a queue, and its own goroutine that makes frames of what is queued.
func (p *rabbitmqPeer) send(r *run) error {
	for partition, confirmed := range p.confirmed {
		go hearConfirmed(r, uint64(partition), confirmed)
	}
	return r.lane(0, 1, func(partition, number uint64) error {
		record := amqp.NewMessage(r.load.record(number))
		// From 1 on, without gaps.
		record.SetPublishingId(int64(number/r.load.partitions) + 1)
		return p.producers[partition].Send(record)
	}, func() error { return nil })
}

func hearConfirmed(r *run, partition uint64, confirmed stream.ChannelPublishConfirm) {
	for statuses := range confirmed {
		for _, status := range statuses {
			number := uint64(status.GetPublishingId()-1)*r.load.partitions + partition
			if !status.IsConfirmed() {
				r.failed(fmt.Errorf("record %d: %w", number, status.GetError()))
				return
			}
			r.acknowledged(number)
		}
	}
	// Once all is acknowledged nobody asks for failures any more.
	r.failed(fmt.Errorf("the connection of partition %d was closed", partition))
}

func (p *rabbitmqPeer) readBack(l load) (uint64, error) {
	var verified uint64
	for partition := range l.partitions {
		found, err := p.readPartition(l, partition)
		verified += found
		if err != nil {
			return verified, err
		}
	}
	return verified, nil
}

// The stream's last offset is not told, so a while is waited for records too many after the last that is due. The consumer is not closed:
// that takes the client seconds, and the process ends anyway.
func (p *rabbitmqPeer) readPartition(l load, partition uint64) (uint64, error) {
	records := make(chan []byte, 4096)
	_, err := p.environment.NewConsumer(nameOf(partition),
		func(_ stream.ConsumerContext, delivered *amqp.Message) { records <- delivered.GetData() },
		stream.NewConsumerOptions().SetOffset(stream.OffsetSpecification{}.First()).SetCRCCheck(true).SetInitialCredits(readAheadChunks))
	if err != nil {
		return 0, err
	}
	expected := l.inPartition(partition)
	for place := range expected {
		select {
		case record := <-records:
			if err := l.verify(partition, place, record); err != nil {
				return place, err
			}
		case <-time.After(patience):
			return place, fmt.Errorf("partition %d has %d records instead of %d", partition, place, expected)
		}
	}
	select {
	case <-records:
		return expected, fmt.Errorf("partition %d has more records than %d", partition, expected)
	case <-time.After(tooMany):
		return expected, nil
	}
}

// A connection numbers its producers and its consumers with a byte.
const maxPerConnection = 200

// Chunks on the way to the reader: they are small if the producer was not pushed back, and each one's credit is a round trip.
const readAheadChunks = 1000

// socketBufferBytes instead of the client's own 8 KiB, which are less than one segment on the loopback: the kernel then sends a
// window at a time, five times a second.
const socketBufferBytes = 4 << 20

// A record too many would follow the last one at once, from the same or the next chunk.
const tooMany = 50 * time.Millisecond
