package main

import (
	"fmt"

	"github.com/gomodule/redigo/redis"
)

// redisPeer: a partition is a stream under a key. Commands are pipelined: one goroutine of a lane writes, another one reads the answers.
type redisPeer struct {
	address     string
	lanes       uint64
	connections []redis.Conn
}

func (p *redisPeer) prepare(load) error {
	for range p.lanes {
		connection, err := redis.Dial("tcp", p.address)
		if err != nil {
			return err
		}
		p.connections = append(p.connections, connection)
	}
	_, err := p.connections[0].Do("PING")
	return err
}

func (p *redisPeer) send(r *run) error {
	return inLanes(p.lanes, func(lane uint64) error {
		connection := p.connections[lane]
		go p.hear(r, lane)
		buffer := make([]byte, r.load.recordBytes)
		return r.lane(lane, p.lanes, func(partition, number uint64) error {
			return connection.Send("XADD", nameOf(partition), "*", "v", r.load.fill(buffer, number))
		}, connection.Flush)
	})
}

// hear reads the answers of a lane, which come in the order of its commands.
func (p *redisPeer) hear(r *run, lane uint64) {
	for first := uint64(0); first < r.load.records; first += r.load.partitions {
		for partition := lane; partition < r.load.partitions && first+partition < r.load.records; partition += p.lanes {
			if _, err := p.connections[lane].Receive(); err != nil {
				r.failed(fmt.Errorf("record %d: %w", first+partition, err))
				return
			}
			r.acknowledged(first + partition)
		}
	}
}

func (p *redisPeer) readBack(l load) (uint64, error) {
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

// An entry is its id and its fields with their values, one of each here.
func (p *redisPeer) readPartition(l load, partition uint64) (uint64, error) {
	var place uint64
	for from := "-"; ; {
		entries, err := redis.Values(p.connections[0].Do("XRANGE", nameOf(partition), from, "+", "COUNT", 1000))
		if err != nil {
			return place, err
		}
		if len(entries) == 0 {
			break
		}
		for _, entry := range entries {
			var id string
			var fields [][]byte
			parts, err := redis.Values(entry, nil)
			if err != nil {
				return place, err
			}
			if _, err := redis.Scan(parts, &id, &fields); err != nil {
				return place, err
			}
			if len(fields) != 2 {
				return place, fmt.Errorf("partition %d, place %d: %d fields and values instead of 2", partition, place, len(fields))
			}
			if err := l.verify(partition, place, fields[1]); err != nil {
				return place, err
			}
			place++
			from = "(" + id
		}
	}
	if expected := l.inPartition(partition); place != expected {
		return place, fmt.Errorf("partition %d has %d records instead of %d", partition, place, expected)
	}
	return place, nil
}
