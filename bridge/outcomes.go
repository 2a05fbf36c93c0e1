// SPDX-License-Identifier: MIT

package bridge

import (
	"encoding/binary"
	"math"
	"sync"

	"golang.org/x/sys/unix"

	"gopool/gopool"
)

// Outcomes carries settled tasks to Python: a ring in memory that both sides map, written here
// and read by the pool's collector thread, which sleeps on an eventfd while it is empty.
//
// A record is a header (recordHeader bytes, little endian, PROTOCOL.md "Outcome records") and
// the inline payload, padded to eight bytes. Records do not wrap: a header whose size is
// padRecord fills the rest of the ring.
type Outcomes struct {
	mem  []byte
	wake int // eventfd of the collector

	receiving sync.Mutex // held while a message that brings a descriptor is received and handled

	mu       sync.Mutex // guards what follows; Poller.mu may be taken while it is held
	head     uint64     // bytes ever written
	tail     uint64     // bytes ever read
	overflow []record   // outcomes that did not fit, oldest first
	waiting  int        // payload bytes in overflow
	regions  int        // outcomes with a region that were not read
	memory   uint64     // bytes of those regions
	ends     []ending   // of the records with a region in the ring, oldest first
	asleep   bool       // the collector found nothing and waits on the eventfd
	drained  bool
	poked    bool              // a worker has ended since Take last said so
	most     int               // regions that may be unread
	resume   []func()          // called when there is room again
	scarce   scarcity          // whether descriptors are (scarce_linux.go)
	watched  bool              // a thread looks for its outcome: the collector is not to be woken
	lent     map[uint64]record // outcomes that such a thread has read, by job (loan.go)
}

type record struct {
	header  [recordHeader]byte
	payload []byte
}

// ending is where a record with a region ends in the ring, and the region's bytes.
type ending struct{ at, size uint64 }

const (
	recordHeader = 56
	padRecord    = 0xFFFFFFFF
	// maxOverflow is how many bytes may wait beside the ring before workers are not read any
	// more: as much as a pool's unsettled payload may hold.
	maxOverflow = 64 << 20
	// maxRegions is how many unread outcomes may keep a descriptor open, unless SetMaxRegions
	// says fewer: few, beside the usual limit of 1,024 in a process.
	maxRegions = 64
	// maxMemory is how many bytes the regions of unread outcomes may have before workers are not
	// read any more: as much as a process keeps of regions for later use (warm.py).
	maxMemory = 256 << 20
)

// NewOutcomes lays the ring into mem, whose length is a multiple of eight.
func NewOutcomes(mem []byte, wakeFD int) *Outcomes {
	return &Outcomes{mem: mem, wake: wakeFD, most: maxRegions,
		scarce: scarcity{patience: placePatience}}
}

// SetMaxRegions bounds how many unread outcomes may keep a descriptor open.
func (q *Outcomes) SetMaxRegions(n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.most = min(n, maxRegions)
}

// Deliver appends an outcome and wakes the collector if it sleeps.
func (q *Outcomes) Deliver(o *gopool.Outcome) {
	r := record{payload: o.Payload}
	if o.Failure != nil {
		r.payload = encodeFailure(o.Failure)
	}
	h := r.header[:]
	binary.LittleEndian.PutUint32(h[0:], uint32(recordSize(len(r.payload))))
	binary.LittleEndian.PutUint32(h[4:], uint32(len(r.payload)))
	binary.LittleEndian.PutUint64(h[8:], o.Job)
	binary.LittleEndian.PutUint64(h[16:], o.Index)
	binary.LittleEndian.PutUint64(h[24:], o.Region.Size)
	binary.LittleEndian.PutUint64(h[32:], uint64(int64(regionFD(o))))
	binary.LittleEndian.PutUint64(h[40:], uint64(int64(o.TaskRegion)))
	binary.LittleEndian.PutUint64(h[48:], uint64(o.Status))

	q.mu.Lock()
	defer q.mu.Unlock()
	if r.hasRegion() {
		q.regions++
		q.memory += r.regionSize()
	}
	q.append(r)
}

// append puts a record behind all others. mu is held.
func (q *Outcomes) append(r record) {
	if len(q.overflow) > 0 || !q.write(&r) {
		r.payload = append([]byte(nil), r.payload...)
		q.overflow = append(q.overflow, r)
		q.waiting += len(r.payload)
	}
	q.rouse()
}

// regionFD is the descriptor of the outcome's region; the zero Region has none.
func regionFD(o *gopool.Outcome) int {
	if o.Region.Size == 0 {
		return -1
	}
	return o.Region.FD
}

func (r *record) hasRegion() bool { return int64(binary.LittleEndian.Uint64(r.header[32:])) >= 0 }

func (r *record) regionSize() uint64 { return binary.LittleEndian.Uint64(r.header[24:]) }

func recordSize(payload int) int { return (recordHeader + payload + 7) &^ 7 }

// write puts a record into the ring, or returns false where it does not fit now. Between the
// padding and the record the collector may read nothing, since mu is held.
func (q *Outcomes) write(r *record) bool {
	size := uint64(len(q.mem))
	need := uint64(recordSize(len(r.payload)))
	at := q.head % size
	pad := uint64(0)
	if size-at < need {
		pad = size - at
	}
	if size-(q.head-q.tail) < need+pad {
		return false
	}
	if pad > 0 {
		binary.LittleEndian.PutUint32(q.mem[at:], uint32(pad))
		binary.LittleEndian.PutUint32(q.mem[at+4:], padRecord)
		q.head += pad
		at = 0
	}
	copy(q.mem[at:], r.header[:])
	copy(q.mem[at+recordHeader:], r.payload)
	q.head += need
	if r.hasRegion() {
		q.ends = append(q.ends, ending{q.head, r.regionSize()})
	}
	return true
}

// Take says where in the ring there is something to read, in the upper half of the result, and how
// many bytes up to the ring's end, in the lower. consumed is what was read since the last call. 0:
// nothing, wait on the eventfd; -1: nothing, and nothing will come; -2: first of all, a worker has
// ended; ask again; -3: a descriptor that is kept for this is to be closed, or there is none; ask again.
func (q *Outcomes) Take(consumed int) int {
	q.mu.Lock()
	q.consume(uint64(consumed))
	var resume []func()
	q.placed(consumed)
	if !q.full() && (q.scarce.place != asked || q.drained) {
		resume, q.resume = q.resume, nil
	}
	available := q.available()
	q.asleep = available == 0
	q.mu.Unlock()
	for _, f := range resume {
		f()
	}
	return available
}

// Awake says that the collector does not sleep, whoever woke it.
func (q *Outcomes) Awake() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.asleep = false
}

// consume frees the bytes that were read and fills the ring from overflow. mu is held.
func (q *Outcomes) consume(n uint64) {
	q.tail += n
	for len(q.ends) > 0 && q.ends[0].at <= q.tail {
		q.memory -= q.ends[0].size
		q.ends = q.ends[1:]
		q.regions--
	}
	for len(q.overflow) > 0 && q.write(&q.overflow[0]) {
		q.waiting -= len(q.overflow[0].payload)
		q.overflow[0] = record{}
		q.overflow = q.overflow[1:]
	}
}

func (q *Outcomes) available() int {
	size := uint64(len(q.mem))
	switch n := min(q.head-q.tail, size-q.tail%size); {
	case q.poked: // before any outcome, whose callback may wait for the worker's replacement
		q.poked = false
		return -2
	case q.scarce.place == asked && !q.drained:
		q.scarce.place = making
		return -3
	case n > 0:
		return int(q.tail%size)<<32 | int(n)
	case q.drained && len(q.lent) == 0:
		return -1
	}
	return 0
}

// full says that the collector is so far behind that workers should wait. mu is held.
func (q *Outcomes) full() bool {
	return q.waiting >= maxOverflow || q.regions >= q.most || q.memory >= maxMemory
}

// Full says that the collector is so far behind that no outcome should be read from workers now.
func (q *Outcomes) Full() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.full()
}

// PauseIfFull calls pause, and later resume, where the collector is so far behind that no more
// outcomes should be read from workers.
func (q *Outcomes) PauseIfFull(pause, resume func()) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.full() {
		return false
	}
	pause()
	q.resume = append(q.resume, resume)
	return true
}

// Drained makes Take return -1 once everything was read.
func (q *Outcomes) Drained() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.drained = true
	q.rouse()
}

// Poke has the next Take say that a worker's process has ended.
func (q *Outcomes) Poke() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.poked = true
	q.rouse()
}

// rouse wakes the collector. mu is held.
func (q *Outcomes) rouse() {
	if q.asleep && !q.watched {
		q.asleep = false
		signal(q.wake)
	}
}

// signal adds one to an eventfd; a full counter wakes the reader as well. A file that has its number,
// since the program has closed what it does not know, is left alone.
func signal(fd int) {
	var stat unix.Stat_t
	if unix.Fstat(fd, &stat) != nil || stat.Mode&unix.S_IFMT != 0 {
		return
	}
	one := [8]byte{1}
	_, _ = unix.Write(fd, one[:])
}

// statusEvent marks a record that is no outcome but an event.
const statusEvent gopool.Status = 255

// Tell appends an event, in the order of the outcomes round it.
func (q *Outcomes) Tell(e *gopool.Event) {
	le := binary.LittleEndian
	data := le.AppendUint32(nil, uint32(e.Kind))
	data = le.AppendUint32(data, uint32(e.PID))
	data = le.AppendUint32(data, flags(e.HasTask))
	data = le.AppendUint32(data, uint32(e.Attempt))
	data = le.AppendUint64(data, e.Job)
	data = le.AppendUint64(data, e.Index)
	data = le.AppendUint64(data, math.Float64bits(e.RanFor.Seconds()))
	data = append(data, e.Text...)
	q.Deliver(&gopool.Outcome{Status: statusEvent, Payload: data, TaskRegion: -1})
}

// encodeFailure writes a failure as PROTOCOL.md, "Outcome records", has it.
func encodeFailure(f *gopool.Failure) []byte {
	le := binary.LittleEndian
	data := le.AppendUint32(nil, uint32(f.PID))
	data = le.AppendUint32(data, uint32(f.Exit.Code))
	data = le.AppendUint32(data, flags(f.Exit.Known, f.Started))
	data = le.AppendUint64(data, uint64(f.RanFor.Milliseconds()))
	return append(data, f.Text...)
}

// flags has a bit for each condition, the first in bit 0.
func flags(conditions ...bool) uint32 {
	set := uint32(0)
	for i, condition := range conditions {
		if condition {
			set |= 1 << i
		}
	}
	return set
}
