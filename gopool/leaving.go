// SPDX-License-Identifier: MIT

package gopool

import (
	"fmt"
	"time"
)

// This file is about workers that retire and don't end: an exit hook that never returns, a thread
// that the interpreter waits for. Each holds a place in its pool until its process has ended.

// LeaveGraces is how many times Limits.Grace a worker that ends in order may take (arbitrary: a minute
// by default). It is asked to end for no fault of its own, and its exit hooks save what tasks have left.
const LeaveGraces = 12

// LeastLeave is what it may take at least: a grace may be short or none, for what is to stop at once.
const LeastLeave = time.Second

// leave counts the time of a worker that ends in order to make room for another.
func (p *Pool) leave(w *worker) {
	if p.limits.Size == 0 || !w.ready || w.leaving { // Size 0: nobody has set limits
		return
	}
	w.leaving = true
	w.killAt = p.now().Add(p.leaveTime())
	p.arm(w.killAt)
}

func (p *Pool) leaveTime() time.Duration { return max(LeaveGraces*p.limits.Grace, LeastLeave) }

// overstayed ends a worker that has not left in its time. Two are let be: the workers of a pool that
// needs them no more, which may take as long as those that close() has asked to go; and one that
// waits for its children, as a process of a pool with daemon=False does before it ends.
func (p *Pool) overstayed(w *worker, now time.Time) {
	switch {
	case p.finishing():
		w.killAt = time.Time{}
	case p.limits.Tree && w.link.HasChildren():
		w.killAt = now.Add(p.leaveTime())
		p.arm(w.killAt)
	default:
		w.killAt = time.Time{}
		w.asked = true
		p.tell(EventLimit, w, nil, fmt.Sprintf("it was to end, and had not after %v", p.leaveTime()))
		w.link.Kill(p.limits.Tree)
	}
}
