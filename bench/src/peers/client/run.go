package main

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// run is one sending of a load: who may send when, and when what was sent was acknowledged.
type run struct {
	load    load
	started time.Time
	window  window

	mutex   sync.Mutex
	latency *hdrhistogram.Histogram
	failure atomic.Pointer[error]
}

func newRun(l load) *run {
	r := &run{load: l, latency: hdrhistogram.New(1, int64(10*time.Minute), 3)}
	r.window.free = l.unacknowledged
	r.window.changed.L = &r.window.mutex
	return r
}

// lane sends the records of every lanes-th partition, from partition lane on, in order. What send leaves in a buffer, flush sends: it is
// called before lane waits for anything.
func (r *run) lane(lane, lanes uint64, send func(partition, number uint64) error, flush func() error) error {
	if r.load.rate > 0 {
		// The runtime's own timers wake an idle process up to a millisecond late; a sleeping thread wakes within some 60 µs.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
	}
	for first := uint64(0); first < r.load.records; first += r.load.partitions {
		for partition := lane; partition < r.load.partitions && first+partition < r.load.records; partition += lanes {
			number := first + partition
			if r.load.rate > 0 {
				if wait := time.Until(r.due(number)); wait > 0 {
					if err := flush(); err != nil {
						return err
					}
					pause := syscall.NsecToTimespec(int64(wait))
					_ = syscall.Nanosleep(&pause, nil)
				}
			}
			if !r.window.tryTake() {
				if err := flush(); err != nil {
					return err
				}
				r.window.take()
			}
			if failure := r.failure.Load(); failure != nil {
				return *failure
			}
			if err := send(partition, number); err != nil {
				return fmt.Errorf("record %d: %w", number, err)
			}
		}
	}
	return flush()
}

// due is when record number is to be sent, whether or not those before it were acknowledged.
func (r *run) due(number uint64) time.Time {
	return r.started.Add(time.Duration(float64(number) / r.load.rate * float64(time.Second)))
}

// acknowledged: the server has answered for record number.
func (r *run) acknowledged(number uint64) {
	if r.load.rate > 0 {
		late := time.Since(r.due(number))
		r.mutex.Lock()
		_ = r.latency.RecordValue(max(1, int64(late)))
		r.mutex.Unlock()
	}
	r.window.giveBack(1)
}

// failed ends the run. Whoever waits for room is let go, and finds the failure.
func (r *run) failed(err error) {
	r.failure.CompareAndSwap(nil, &err)
	r.window.giveBack(1 << 30)
}

// drained waits until all is acknowledged.
func (r *run) drained() error {
	r.window.waitUntilFree(r.load.unacknowledged)
	if failure := r.failure.Load(); failure != nil {
		return *failure
	}
	return nil
}

// window bounds the records that are unacknowledged.
type window struct {
	mutex   sync.Mutex
	changed sync.Cond
	waiting int
	free    int
}

func (w *window) tryTake() bool {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	if w.free == 0 {
		return false
	}
	w.free--
	return true
}

func (w *window) take() {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	w.waitFor(1)
	w.free--
}

func (w *window) giveBack(records int) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	w.free += records
	if w.waiting > 0 {
		w.changed.Broadcast()
	}
}

func (w *window) waitUntilFree(records int) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	w.waitFor(records)
}

func (w *window) waitFor(records int) {
	w.waiting++
	for w.free < records {
		w.changed.Wait()
	}
	w.waiting--
}
