// SPDX-License-Identifier: MIT

package bridge

import (
	"time"

	"golang.org/x/sys/unix"
)

// This file looks for the outcome of a task whose waiter reads it for itself; see loan.go.

const (
	// spinMost is how long Borrow looks for an outcome. A tiny task takes about half of it.
	spinMost = 60 * time.Microsecond
	// spinLeast is what is left of that before it is given up.
	spinLeast = 4 * time.Microsecond
	// spinAgainAfter is after how many waits it is tried again.
	spinAgainAfter = 64
)

// Borrow looks for a job's small value, for some microseconds where that has paid before, and lends
// its record: the result is where its payload lies in the ring, the size in the lower half. 0: it is
// not there, not the next one, or for the collector to read. Every call is followed by Return.
func (w *PoolWires) Borrow(job uint64, spin bool) int {
	if !w.Outcomes.Claim(job) {
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
	return w.Outcomes.ValueOf(job)
}

// Return ends what Borrow began: workers wake the collector again, and it is woken where there is
// something to read. settled: the record was read, and the job settled.
func (w *PoolWires) Return(job uint64, settled bool) {
	if w.Outcomes.TakeBack(job, settled) {
		w.listen()
	}
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
