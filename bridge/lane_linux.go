// SPDX-License-Identifier: MIT

package bridge

import (
	"encoding/binary"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"gopool/gopool"
)

// Twin: python/gopool/_worker/_lane.c. Layout and rules: PROTOCOL.md, section 8.

const (
	laneQueue        = 64
	laneAsleep       = 128
	laneListen       = 192
	laneCommit       = 256
	laneRead         = 320
	laneBegan        = 384
	laneSlotsAt      = 512
	laneSlots        = 128
	laneSlotSize     = 16
	laneTasks        = 4096
	laneTasksSize    = 65536
	laneOutcomes     = laneTasks + laneTasksSize
	laneOutcomesSize = 65536
	laneRecordHeader = 16 // before the frame: when the task began, and when it ended
	lanePad          = 1<<64 - 1

	// LaneSize is how many bytes of a worker's memory are its lane.
	LaneSize = laneOutcomes + laneOutcomesSize
	// MaxLaneBody is how many bytes a message in a lane may have; larger ones go by the socket.
	MaxLaneBody = 16384
)

// What laneListen says: that the collector is to be woken by the next outcome, and that Go wants to
// be told when the worker goes to sleep.
const (
	listenCollector = 1
	listenHungry    = 2
)

// lane is the parent's side of the memory in which tasks go to a worker, and outcomes come back,
// without a system call.
//
// The pool's lock guards all that is about tasks, the link's `listening` the reading of outcomes.
// The worker may write anything at any time: each word is read once and checked, and what only this
// side needs to know is kept outside of the memory.
type lane struct {
	mem []byte

	broken atomic.Bool // the worker's count of tasks made no sense

	entries [laneSlots]laneEntry
	first   uint32 // tasks ever put in and settled, or taken back
	next    uint32 // tasks ever put in and not taken back
	at      int    // where the next message goes
	claimed uint32 // the worker's count, when it was looked at last

	read atomic.Uint64 // bytes of outcomes ever read
}

// laneEntry is one task in the lane.
type laneEntry struct {
	id      gopool.TaskID
	at      int // where its message begins
	settled bool
}

// openLane maps a worker's lane.
func openLane(fd int) (*lane, error) {
	mem, err := MapShared(fd, LaneSize)
	if err != nil {
		return nil, err
	}
	return &lane{mem: mem}, nil
}

func (l *lane) close() { _ = UnmapShared(l.mem) }

func (l *lane) word64(at int) *uint64 { return (*uint64)(unsafe.Pointer(&l.mem[at])) }
func (l *lane) word32(at int) *uint32 { return (*uint32)(unsafe.Pointer(&l.mem[at])) }

// unclaimed is how many tasks the worker has not begun; none where it broke the lane.
func (l *lane) unclaimed() int {
	n, _ := l.look(atomic.LoadUint64(l.word64(laneQueue)))
	return n
}

// look reads the two counts. false: they make no sense, now or before.
func (l *lane) look(queue uint64) (unclaimed int, ok bool) {
	head, tail := uint32(queue), uint32(queue>>32)
	if tail != l.next || l.next-head > l.next-l.claimed {
		l.broken.Store(true)
	}
	if l.broken.Load() {
		return 0, false
	}
	l.claimed = head
	return int(l.next - head), true
}

// empty says that nothing lies here that is not settled.
func (l *lane) empty() bool { return l.first == l.next }

// put appends a task, whose message's body is given. ErrLinkFull: there is no room now. errLaneCount:
// the worker broke the lane.
func (l *lane) put(id gopool.TaskID, body []byte) error {
	size := max(8, (len(body)+7)&^7)
	at, room := l.place(size)
	if !room {
		return gopool.ErrLinkFull
	}
	copy(l.mem[laneTasks+at:], body)
	index := l.next % laneSlots
	slot := l.mem[laneSlotsAt+index*laneSlotSize:]
	binary.LittleEndian.PutUint64(slot, uint64(id))
	binary.LittleEndian.PutUint32(slot[8:], uint32(at))
	binary.LittleEndian.PutUint32(slot[12:], uint32(len(body)))
	l.entries[index] = laneEntry{id: id, at: at}
	for {
		queue := atomic.LoadUint64(l.word64(laneQueue))
		if _, ok := l.look(queue); !ok {
			return errLaneCount
		}
		if atomic.CompareAndSwapUint64(l.word64(laneQueue), queue, queue+1<<32) {
			l.next++
			l.at = at + size
			return nil
		}
	}
}

var errLaneCount = reasonLane("its count of tasks makes no sense")

// place finds room for a message: its bytes lie in one piece between the newest task and the oldest.
func (l *lane) place(size int) (at int, room bool) {
	if l.empty() {
		return 0, true
	}
	if l.next-l.first == laneSlots {
		return 0, false
	}
	oldest := l.entries[l.first%laneSlots].at
	switch {
	case l.at > oldest && laneTasksSize-l.at >= size:
		return l.at, true
	case l.at > oldest:
		return 0, oldest > size // never up to the oldest: that would look like an empty lane
	}
	return l.at, oldest-l.at > size
}

// takeBack takes the youngest tasks that the worker has not begun, all but keep of them, and
// returns them, oldest first.
func (l *lane) takeBack(keep int) []gopool.TaskID {
	for {
		queue := atomic.LoadUint64(l.word64(laneQueue))
		unclaimed, ok := l.look(queue)
		if !ok || unclaimed <= keep {
			return nil
		}
		tail := uint32(queue) + uint32(keep)
		if !atomic.CompareAndSwapUint64(l.word64(laneQueue), queue,
			uint64(tail)<<32|uint64(uint32(queue))) {
			continue
		}
		ids := make([]gopool.TaskID, 0, unclaimed-keep)
		for i := tail; i != l.next; i++ {
			ids = append(ids, l.entries[i%laneSlots].id)
		}
		l.at = l.entries[tail%laneSlots].at
		l.next = tail
		return ids
	}
}

// settled frees the place of a task that is done. Tasks end in order, so it is the oldest, but where
// one is cut short. A worker that has done what it had not claimed broke the lane.
func (l *lane) settled(id gopool.TaskID) {
	_, ok := l.look(atomic.LoadUint64(l.word64(laneQueue)))
	if !ok {
		return
	}
	done := false
	for i := l.first; i != l.claimed && !done; i++ {
		if e := &l.entries[i%laneSlots]; e.id == id && !e.settled {
			e.settled, done = true, true
		}
	}
	for l.first != l.claimed && l.entries[l.first%laneSlots].settled {
		l.first++
	}
	if !done {
		l.broken.Store(true)
	}
}

// What laneAsleep says.
const (
	laneAwake  = 0
	laneDozing = 1 // it sleeps, or is about to
	laneCalled = 2 // it was woken, and has not said that it is awake
)

// asleep says that the worker does not run.
func (l *lane) asleep() bool { return atomic.LoadUint32(l.word32(laneAsleep)) != laneAwake }

// rouse claims the waking of a worker that sleeps: true, to one caller only.
func (l *lane) rouse() bool {
	return atomic.LoadUint32(l.word32(laneAsleep)) == laneDozing &&
		atomic.CompareAndSwapUint32(l.word32(laneAsleep), laneDozing, laneCalled)
}

// listen sets who wants to be told.
func (l *lane) listen(who uint32) { atomic.OrUint32(l.word32(laneListen), who) }

// ignore undoes listen.
func (l *lane) ignore(who uint32) {
	if atomic.LoadUint32(l.word32(laneListen))&who != 0 {
		atomic.AndUint32(l.word32(laneListen), ^who)
	}
}

// busy is how long the task runs that runs at a moment; false: none does.
func (l *lane) busy(now time.Time) (time.Duration, bool) {
	began, at := atomic.LoadUint64(l.word64(laneBegan)), clock.ns(now)
	if began == 0 || began > at {
		return 0, false
	}
	return time.Duration(at - began), true
}

// pending says that outcomes wait.
func (l *lane) pending() bool {
	return atomic.LoadUint64(l.word64(laneCommit)) != l.read.Load()
}

// laneOutcome is an outcome's frame in the lane's memory, and how long the task took.
type laneOutcome struct {
	frame []byte
	ended uint64 // nanoseconds of the system's monotonic clock
	took  time.Duration
	size  uint64 // bytes of the ring
}

// peek returns the oldest outcome, which stays where it is until it is freed.
func (l *lane) peek() (o laneOutcome, ok bool, err error) {
	commit, read := atomic.LoadUint64(l.word64(laneCommit)), l.read.Load()
	left := commit - read
	if left == 0 {
		return o, false, nil
	}
	if left > laneOutcomesSize || commit%8 != 0 {
		return o, false, errOutcomesCount
	}
	ring := l.mem[laneOutcomes:][read%laneOutcomesSize : laneOutcomesSize]
	if binary.LittleEndian.Uint64(ring) == lanePad { // not a time: the record lies at the start
		if uint64(len(ring)) >= left || len(ring) == laneOutcomesSize {
			return o, false, errOutcomesPad
		}
		left -= uint64(len(ring))
		l.free(uint64(len(ring)))
		ring = l.mem[laneOutcomes:][:laneOutcomesSize]
	}
	ring = ring[:min(left, uint64(len(ring)))]
	if len(ring) < laneRecordHeader+HeaderSize {
		return o, false, errOutcomeCut
	}
	size := uint64(binary.LittleEndian.Uint32(ring[laneRecordHeader:])) + laneRecordHeader + HeaderSize
	if size > uint64(len(ring)) {
		return o, false, errOutcomeCut
	}
	o.frame = ring[laneRecordHeader:size]
	o.ended = binary.LittleEndian.Uint64(ring[8:])
	o.took = time.Duration(max(int64(o.ended-binary.LittleEndian.Uint64(ring)), 0))
	o.size = (size + 7) &^ 7
	return o, true, nil
}

// What a worker may do to the ring of outcomes.
var (
	errOutcomesCount = reasonLane("its count of bytes makes no sense")
	errOutcomesPad   = reasonLane("its ring is padded where nothing follows")
	errOutcomeCut    = reasonLane("an outcome is longer than what was written")
)

func reasonLane(reason string) error { return &ProtocolError{Reason: "lane: " + reason} }

// free gives the bytes of outcomes back to the worker.
func (l *lane) free(size uint64) {
	atomic.StoreUint64(l.word64(laneRead), l.read.Add(size))
}

// clock turns the system's monotonic clock, in which workers stamp, into times of this process.
var clock = newClock()

type laneClock struct {
	base   time.Time
	baseNS uint64
}

func newClock() laneClock {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t)
	return laneClock{time.Now(), uint64(t.Nano())}
}

func (c laneClock) time(ns uint64) time.Time { return c.base.Add(time.Duration(int64(ns - c.baseNS))) }
func (c laneClock) ns(t time.Time) uint64    { return c.baseNS + uint64(t.Sub(c.base)) }
