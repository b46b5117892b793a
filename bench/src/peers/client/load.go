package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strconv"
)

// load is what is sent: record i, from 0, goes to partition i % partitions.
type load struct {
	recordBytes    int
	partitions     uint64
	records        uint64
	unacknowledged int
	// Records a second; 0: as fast as it goes.
	rate float64
}

// A record is its number, eight bytes, and then noise that no compression makes shorter. The noise comes from one block, at a place
// that depends on the number: a neighbour's bytes are noticed, and making a record costs no more than copying it.
var noise = func() []byte {
	block := make([]byte, 1<<20)
	source := rand.NewChaCha8([32]byte{})
	_, _ = source.Read(block)
	return block
}()

const numberBytes = 8

func (l load) check() error {
	if l.recordBytes < numberBytes || l.recordBytes > len(noise)/2 {
		return fmt.Errorf("records of %d bytes: must be %d to %d", l.recordBytes, numberBytes, len(noise)/2)
	}
	if l.partitions == 0 || l.records == 0 || l.unacknowledged == 0 || l.rate < 0 {
		return fmt.Errorf("partitions, records and unacknowledged must be above 0, rate not below: %+v", l)
	}
	return nil
}

func (l load) tail(number uint64) []byte {
	length := l.recordBytes - numberBytes
	at := int(number * 4099 % uint64(len(noise)-length))
	return noise[at : at+length]
}

// fill makes record number in buffer, which has recordBytes.
func (l load) fill(buffer []byte, number uint64) []byte {
	binary.LittleEndian.PutUint64(buffer, number)
	copy(buffer[numberBytes:], l.tail(number))
	return buffer
}

func (l load) record(number uint64) []byte {
	return l.fill(make([]byte, l.recordBytes), number)
}

func numberOf(record []byte) uint64 {
	return binary.LittleEndian.Uint64(record)
}

// nameOf is how a partition is called at every peer.
func nameOf(partition uint64) string {
	return "partition-" + strconv.FormatUint(partition, 10)
}

// inPartition is how many records partition has.
func (l load) inPartition(partition uint64) uint64 {
	return (l.records + l.partitions - 1 - partition) / l.partitions
}

// verify says what is wrong with a record that was read at place, from 0, of partition.
func (l load) verify(partition, place uint64, record []byte) error {
	number := place*l.partitions + partition
	if len(record) != l.recordBytes {
		return fmt.Errorf("partition %d, place %d: %d bytes instead of %d", partition, place, len(record), l.recordBytes)
	}
	if numberOf(record) != number {
		return fmt.Errorf("partition %d, place %d: record %d instead of %d", partition, place, numberOf(record), number)
	}
	if !bytes.Equal(record[numberBytes:], l.tail(number)) {
		return fmt.Errorf("partition %d, place %d: record %d has other bytes than were sent", partition, place, number)
	}
	return nil
}
