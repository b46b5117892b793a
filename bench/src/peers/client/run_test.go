package main

import (
	"errors"
	"testing"
	"time"
)

func TestLanesTogetherSendEachPartitionInOrderAndAllRecordsOnce(t *testing.T) {
	l := load{recordBytes: 8, partitions: 5, records: 23, unacknowledged: 100}
	r := newRun(l)
	sent := make([][]uint64, l.partitions)
	for lane := range uint64(2) {
		err := r.lane(lane, 2, func(partition, number uint64) error {
			sent[partition] = append(sent[partition], number)
			return nil
		}, func() error { return nil })
		if err != nil {
			t.Fatal(err)
		}
	}
	for partition, numbers := range sent {
		if uint64(len(numbers)) != l.inPartition(uint64(partition)) {
			t.Errorf("partition %d: %v", partition, numbers)
		}
		for place, number := range numbers {
			if number != uint64(place)*l.partitions+uint64(partition) {
				t.Errorf("partition %d, place %d: %d", partition, place, number)
			}
		}
	}
}

func TestNoMoreIsSentThanMayBeUnacknowledgedAndWhatIsBufferedIsFlushedFirst(t *testing.T) {
	r := newRun(load{recordBytes: 8, partitions: 1, records: 10, unacknowledged: 3})
	var buffered, flushed uint64
	err := r.lane(0, 1, func(_, number uint64) error {
		buffered++
		if buffered-flushed > 3 {
			t.Errorf("record %d is the fourth at once", number)
		}
		return nil
	}, func() error {
		// The server answers what reached it.
		for ; flushed < buffered; flushed++ {
			r.acknowledged(flushed)
		}
		return nil
	})
	if err != nil || flushed != 10 {
		t.Errorf("%v, %d flushed", err, flushed)
	}
	if err := r.drained(); err != nil {
		t.Error(err)
	}
}

func TestAFailureEndsWhoWaitsForRoomAndWhoWaitsForTheEnd(t *testing.T) {
	r := newRun(load{recordBytes: 8, partitions: 1, records: 10, unacknowledged: 1})
	broken := errors.New("broken")
	err := r.lane(0, 1, func(_, _ uint64) error {
		go r.failed(broken)
		return nil
	}, func() error { return nil })
	if !errors.Is(err, broken) || !errors.Is(r.drained(), broken) {
		t.Error(err)
	}
}

func TestARecordIsDueByItsNumberWhateverHappenedToThoseBefore(t *testing.T) {
	r := newRun(load{recordBytes: 8, partitions: 1, records: 10, unacknowledged: 1, rate: 4})
	r.started = time.Unix(100, 0)
	if due := r.due(6); !due.Equal(time.Unix(101, 500_000_000)) {
		t.Error(due)
	}
}
