// SPDX-License-Identifier: MIT

package bridge

import (
	"time"

	"golang.org/x/sys/unix"
)

// spinning is how long a thread may look for something that another process is about to do, longer
// while that pays. Its twin is look_if_it_pays in python/gopool/_worker/_lane.c.
type spinning struct {
	most  time.Duration // 0: it did not pay
	waits int           // since it was given up
}

const (
	// spinMost is about twice the time of a tiny task on its way there and back.
	spinMost = 60 * time.Microsecond
	// spinLeast is what is left of that before it is given up.
	spinLeast = 4 * time.Microsecond
	// spinAgainAfter is after how many waits it is tried again.
	spinAgainAfter = 64
)

// processors is how many this process may use: on one, looking keeps away whom it looks for.
var processors = affinity()

func affinity() int {
	var set unix.CPUSet
	if unix.SchedGetaffinity(0, &set) != nil {
		return 2 // more than the set holds
	}
	return set.Count()
}

// until calls found until it is true, or the time is over; false: it was not true.
func (s *spinning) until(found func() bool) bool {
	if found() {
		return true
	}
	if processors < 2 || !s.pays() {
		return false
	}
	for end := time.Now().Add(s.most); time.Now().Before(end); {
		_, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0) // who has work goes first
		if found() {
			s.most = spinMost
			return true
		}
	}
	if s.most /= 2; s.most < spinLeast {
		s.most = 0
	}
	return false
}

func (s *spinning) pays() bool {
	if s.most == 0 {
		if s.waits++; s.waits < spinAgainAfter {
			return false
		}
		s.most = spinMost
	}
	s.waits = 0
	return true
}
