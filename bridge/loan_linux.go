// SPDX-License-Identifier: MIT

package bridge

import (
	"encoding/binary"
	"time"

	"golang.org/x/sys/unix"

	"gopool/gopool"
)

// This file lets a thread that waits for one task read its outcome for itself while the collector
// sleeps: the collector need not wake up, take the interpreter lock, and wake that thread.
//
// The record is lent, not given: until it is returned nobody reads the ring, and where the thread
// was interrupted before it had settled its job, the record is the collector's as it was.

const (
	// spinMost is how long Borrow looks for an outcome. A tiny task takes about half of it.
	spinMost = 60 * time.Microsecond
	// spinLeast is what is left of that before it is given up.
	spinLeast = 4 * time.Microsecond
	// spinAgainAfter is after how many waits it is tried again.
	spinAgainAfter = 64
	// loanMost is when a loan counts as forgotten: an interrupt came in the middle of another.
	loanMost = time.Second
)

// Borrow looks for a job's small value, for some microseconds where that has paid before, and lends
// its record: the result is where its payload lies in the ring, the size in the lower half. 0: it is
// not there, not the next one, or for the collector to read. Every call is followed by Return.
func (w *PoolWires) Borrow(job uint64, spin bool) int {
	if !w.Outcomes.claim(job) {
		return 0
	}
	if w.listening.Swap(false) {
		w.tell((*lane).ignore)
	}
	found := w.lookFor(job)
	if found == 0 && spin && w.spin.pays() {
		for end := time.Now().Add(w.spin.most); found == 0 && time.Now().Before(end); {
			_, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0) // who has work goes first
			found = w.lookFor(job)
		}
		w.spin.learn(found != 0)
	}
	return found
}

func (w *PoolWires) lookFor(job uint64) int {
	w.Drain()
	w.LookAgain()
	return w.Outcomes.valueOf(job)
}

// Return ends what Borrow began: workers wake the collector again, and it is woken where there is
// something to read. settled: the record was read, and the job settled.
func (w *PoolWires) Return(job uint64, settled bool) {
	if w.Outcomes.takeBack(job, settled) {
		w.listen()
	}
}

// claim keeps the collector from reading, for a thread that waits for a job. false: it reads just
// now, or another thread does.
func (q *Outcomes) claim(job uint64) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.asleep || q.isLent() {
		return false
	}
	q.lent, q.lentAt = job, time.Now()
	return true
}

// valueOf finds the payload of a job's outcome, if that is the next record, holds a value and no
// region. Its place is in the upper half of the result, its size in the lower.
func (q *Outcomes) valueOf(job uint64) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	at := q.tail % uint64(len(q.mem))
	if q.head == q.tail || q.poked {
		return 0
	}
	h := q.mem[at:]
	none := int64(-1)
	if binary.LittleEndian.Uint32(h[4:]) == padRecord ||
		binary.LittleEndian.Uint64(h[8:]) != job ||
		binary.LittleEndian.Uint64(h[32:]) != uint64(none) ||
		binary.LittleEndian.Uint64(h[40:]) != uint64(none) ||
		binary.LittleEndian.Uint64(h[48:]) != uint64(gopool.StatusValue) {
		return 0
	}
	return int(at+recordHeader)<<32 | int(binary.LittleEndian.Uint32(h[4:]))
}

// takeBack ends a job's loan; false: it has none. Where its job is settled the record is read.
func (q *Outcomes) takeBack(job uint64, settled bool) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.lent != job {
		return false
	}
	q.lent = 0
	if settled && q.head != q.tail && !q.poked {
		at := q.tail % uint64(len(q.mem))
		if binary.LittleEndian.Uint64(q.mem[at+8:]) == job {
			q.consume(uint64(binary.LittleEndian.Uint32(q.mem[at:])))
		}
	}
	if q.head != q.tail || q.poked || q.drained {
		q.rouse()
	}
	return true
}

// isLent says whether a loan runs, and forgets one that nobody will return. mu is held.
func (q *Outcomes) isLent() bool {
	if q.lent != 0 && time.Since(q.lentAt) > loanMost {
		q.lent = 0
	}
	return q.lent != 0
}

// spinning is how long Borrow may look: longer while that pays.
type spinning struct {
	most  time.Duration
	waits int // since it was given up
}

var processors = affinity()

func affinity() int {
	var set unix.CPUSet
	if unix.SchedGetaffinity(0, &set) != nil {
		return 2
	}
	return set.Count()
}

func (s *spinning) pays() bool {
	if processors < 2 {
		return false
	}
	if s.most == 0 {
		if s.waits++; s.waits < spinAgainAfter {
			return false
		}
		s.most = spinMost
	}
	s.waits = 0
	return true
}

func (s *spinning) learn(found bool) {
	switch {
	case found:
		s.most = spinMost
	case s.most <= spinLeast:
		s.most = 0
	default:
		s.most /= 2
	}
}
