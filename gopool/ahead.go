// SPDX-License-Identifier: MIT

package gopool

import (
	"slices"
	"time"
)

// This file decides how many tasks a worker may hold beyond the one that it runs.
//
// A worker that finds its next task already waiting in its socket does not sleep between two
// tasks, and waking up costs more than a short task. But a task sent ahead sits behind a task
// that may turn out long. Three rules keep that exact:
//   - tasks are sent ahead only for functions that were measured to be quick, and only as long
//     as the queue holds more than that;
//   - a worker that runs dry while nothing is queued takes what others have not begun;
//   - what sits behind a task that has become slow goes back to the front of the queue as soon
//     as any worker has room.

// SendAhead says whether tasks are sent ahead.
type SendAhead int

const (
	AheadAuto   SendAhead = iota // as measured
	AheadNever                   // one task at a time
	AheadAlways                  // as many as allowed, whatever is measured; for tests
)

const (
	// maxAhead is how many unbegun tasks a worker may hold; more gain nothing measurable.
	maxAhead = 16
	// aheadTime is how much work may wait in a worker's socket: a pool whose tasks take a
	// millisecond behaves as if nothing were ever sent ahead.
	aheadTime = 500 * time.Microsecond
	// minSamples is how often a function is measured before anything is sent ahead.
	minSamples = 4
	// stalledAfter is when a task counts as slow: what sits behind it is taken back.
	stalledAfter = time.Millisecond
	// maxPaces bounds the table of measured functions; beyond it functions share an entry.
	maxPaces = 4096
)

// pace is the measured time of a function's tasks.
type pace struct {
	mean    time.Duration // moving average, over about the last eight tasks
	samples int
}

// observe adds one measurement. One slow task makes the function slow at once; it takes many
// quick ones to make it quick again.
func (p *pace) observe(took time.Duration) {
	p.samples++
	if took > stalledAfter || p.samples == 1 {
		p.mean = max(p.mean, took)
		return
	}
	p.mean += (took - p.mean) / 8
}

// ahead is how many tasks of this pace may be sent ahead.
func (p *pace) ahead() int {
	if p == nil || p.samples < minSamples {
		return 0
	}
	return int(min(aheadTime/max(p.mean, 1), maxAhead))
}

// paces holds the pace of each function; 0 is all that have no number.
type paces map[uint32]*pace

func (ps paces) observe(function uint32, took time.Duration) {
	if ps[function] == nil && len(ps) >= maxPaces {
		function = 0
	}
	if ps[function] == nil {
		ps[function] = &pace{}
	}
	ps[function].observe(took)
}

// depth is how many leases a worker may have when the queue's oldest task is granted.
func (p *Pool) depth() int {
	t := p.queue.peek()
	if t == nil || p.cfg.SendAhead == AheadNever || t.timeout() > 0 {
		return 1 // a timeout counts from the beginning, which is known for a first task only
	}
	ahead := maxAhead
	if p.cfg.SendAhead == AheadAuto {
		// The last tasks of a queue are shared out evenly.
		ahead = min(p.paces[t.Function].ahead(), p.queue.len()/len(p.workers))
	}
	return 1 + ahead
}

// feed grants queued tasks to a worker up to its depth, after those that wait behind a slow task
// elsewhere.
func (p *Pool) feed(w *worker, now time.Time) {
	if p.ahead > 0 {
		p.relieve(now)
	}
	if len(w.leases) > 0 && w.leases[0].timeout() > 0 {
		return // nothing waits behind a task that may be cut short
	}
	for p.queue.len() > 0 && len(w.leases) < p.depth() && p.mayGrant(w) {
		t := p.next()
		if t == nil || w.state != Busy || !p.grant(w, t, now) {
			return
		}
	}
}

func (p *Pool) mayGrant(w *worker) bool {
	return !w.retire && (p.cfg.MaxTasks == 0 || w.granted < p.cfg.MaxTasks)
}

// relieve takes back what sits behind tasks that have become slow.
func (p *Pool) relieve(now time.Time) {
	for _, w := range p.workers {
		if len(w.leases) > 1 && now.Sub(w.since) > stalledAfter {
			p.takeBack(w)
		}
	}
}

// steal takes back what busy workers have not begun, where nothing is queued: from one after the
// other, the most loaded first, until something came. A worker may have begun, or even done, all
// that it holds, its outcomes still on their way.
func (p *Pool) steal() {
	if p.ahead == 0 || p.queue.len() > 0 {
		return
	}
	victims := make([]*worker, 0, len(p.workers))
	for _, w := range p.workers {
		if len(w.leases) > 1 {
			victims = append(victims, w)
		}
	}
	slices.SortFunc(victims, func(a, b *worker) int { return len(b.leases) - len(a.leases) })
	for _, w := range victims {
		p.takeBack(w)
		if p.queue.len() > 0 {
			return
		}
	}
}

// unreadAfter is how long a worker may leave its first task unread while another worker is idle. A
// worker that is well reads within a millisecond; one that was stopped, or whose interpreter a
// thread of an earlier task holds, would keep the task waiting for ever.
const unreadAfter = 20 * time.Millisecond

// lookForUnread has rescue called in time for a task that is sent now, and not for each of them.
func (p *Pool) lookForUnread(now time.Time) {
	p.looking = true
	p.arm(now.Add(unreadAfter))
}

// rescue takes back first tasks that have not been read for too long, where another worker is idle.
func (p *Pool) rescue(now time.Time) {
	if len(p.idle) == 0 {
		return
	}
	for _, w := range p.workers {
		if w.state != Busy || w.reads {
			continue
		}
		if due := w.since.Add(unreadAfter); now.Before(due) {
			p.looking = true
			p.arm(due)
			continue
		}
		p.takeBack(w)
		w.reads = w.state == Busy
	}
}

// takeBack returns what a worker has not read to the front of the queue.
func (p *Pool) takeBack(w *worker) {
	before := w.ahead()
	p.queue.pushFront(w.revoke(w.link.TakeBack())...)
	p.ahead += w.ahead() - before
	if w.state == Busy && len(w.leases) == 0 { // it had not read even the first
		p.rest(w)
	}
}
