package main

import "testing"

func TestARecordIsFoundOnlyWhereItBelongs(t *testing.T) {
	l := load{recordBytes: 100, partitions: 3, records: 10, unacknowledged: 1}
	if err := l.verify(1, 2, l.record(7)); err != nil {
		t.Error(err)
	}
	if l.verify(1, 1, l.record(7)) == nil || l.verify(0, 2, l.record(7)) == nil {
		t.Error("another place or partition was not noticed")
	}
}

func TestEveryChangedByteIsNoticed(t *testing.T) {
	l := load{recordBytes: 100, partitions: 1, records: 10, unacknowledged: 1}
	for at := range l.recordBytes {
		record := l.record(3)
		record[at] ^= 1
		if l.verify(0, 3, record) == nil {
			t.Errorf("byte %d", at)
		}
	}
	if l.verify(0, 3, l.record(3)[:99]) == nil {
		t.Error("a cut record was not noticed")
	}
}

func TestThePartitionsTogetherHaveAllRecords(t *testing.T) {
	for records := range uint64(20) {
		l := load{partitions: 7, records: records}
		var sum uint64
		for partition := range l.partitions {
			sum += l.inPartition(partition)
		}
		if sum != records {
			t.Errorf("%d of %d", sum, records)
		}
	}
}

func TestARecordHasRoomForItsNumberAndTheNoiseForTheRecord(t *testing.T) {
	for bytes, allowed := range map[int]bool{7: false, 8: true, len(noise) / 2: true, len(noise)/2 + 1: false} {
		l := load{recordBytes: bytes, partitions: 1, records: 1, unacknowledged: 1}
		if (l.check() == nil) != allowed {
			t.Errorf("%d bytes", bytes)
		}
	}
}
