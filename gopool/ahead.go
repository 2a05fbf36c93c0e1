// SPDX-License-Identifier: MIT

package gopool

import "time"

// This file decides how many tasks a worker may hold beyond the one that it runs.
//
// A worker that finds its next task already there does not sleep between two tasks, and waking it
// up costs more than a short task. But a task sent ahead sits behind a task that may turn out long.
// These rules keep that exact:
//   - tasks are sent ahead only for functions that were measured to be quick;
//   - while a worker is idle, only behind so little that waking the idle one would take as long;
//   - a worker that runs dry while nothing is queued takes what others have not begun, where that is
//     worth being woken for;
//   - what sits behind a task that has become slow goes back to the front of the queue as soon as
//     any worker has room, and within one or two milliseconds whatever else happens;
//   - a task never sits behind a younger one, and returns to the queue in its order: so a task that
//     waits for one submitted before it does not wait for ever.

// SendAhead says whether tasks are sent ahead.
type SendAhead int

const (
	AheadAuto   SendAhead = iota // as measured
	AheadNever                   // one task at a time
	AheadAlways                  // as many as allowed, whatever is measured; for tests
)

const (
	// maxAhead is how many unbegun tasks a worker may hold; more gain nothing measurable.
	maxAhead = 64
	// aheadTime is how much work may wait at a worker: a pool whose tasks take a millisecond
	// behaves as if nothing were ever sent ahead.
	aheadTime = 500 * time.Microsecond
	// wakeTime is about what a sleeping worker takes to begin a task: a task that waits no longer
	// for one that is awake loses nothing.
	wakeTime = 50 * time.Microsecond
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

// within is how many tasks of this pace fit into a time; none before enough were measured.
func (p *pace) within(room time.Duration) int {
	if p == nil || p.samples < minSamples {
		return 0
	}
	return int(min(room/max(p.mean, 1), maxAhead))
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
		ahead = min(p.paces[t.Function].within(aheadTime), p.queue.len()/len(p.workers))
	}
	return 1 + ahead
}

// feed grants queued tasks to a worker up to its depth, after those that wait behind a slow task
// elsewhere.
func (p *Pool) feed(w *worker, now time.Time) {
	if p.ahead > 0 {
		p.relieve(now)
	}
	p.fill(w, now)
}

// fill grants queued tasks to a worker up to its depth.
func (p *Pool) fill(w *worker, now time.Time) {
	if len(w.leases) > 0 && w.leases[0].timeout() > 0 {
		return // nothing waits behind a task that may be cut short
	}
	for w.state == Busy && p.queue.len() > 0 && len(w.leases) < p.depth() && p.mayGrant(w) &&
		!w.holdsYounger(p.queue.peek()) {
		t := p.next()
		if t == nil || !p.grant(w, t, now) {
			return
		}
	}
}

// holdsYounger says whether a task would sit behind a younger one. A worker's leases are in order.
func (w *worker) holdsYounger(t *Task) bool {
	return len(w.leases) > 0 && w.leases[len(w.leases)-1].ID > t.ID
}

func (p *Pool) mayGrant(w *worker) bool {
	return !w.retire && (p.cfg.MaxTasks == 0 || w.granted < p.cfg.MaxTasks)
}

// place grants a new task to a worker that is awake, where it begins there as soon as it would on
// one that has to be woken; nothing is queued before it. false: the queue is the place for it.
func (p *Pool) place(t *Task) bool {
	if p.cfg.SendAhead == AheadNever || t.timeout() > 0 || p.isCancelled(t) || p.broken != nil {
		return false
	}
	room, idle := aheadTime, len(p.idle) > 0
	if idle {
		room = wakeTime
	}
	most := p.paces[t.Function].within(room)
	if most == 0 {
		return false
	}
	now := p.now()
	if idle && p.idle[len(p.idle)-1].link.Progress(now).Awake {
		return false // dispatch takes that one
	}
	w := p.leastLoaded(now, most)
	if w == nil {
		return false
	}
	if !p.grant(w, t, now) {
		p.dispatch() // it is in the queue, or settled
		p.appetite()
	}
	return true
}

// maxCandidates bounds how many workers place looks at.
const maxCandidates = 4

// leastLoaded finds a busy worker that is awake, with fewer unbegun tasks than most.
func (p *Pool) leastLoaded(now time.Time, most int) (best *worker) {
	for range min(len(p.crew), maxCandidates) {
		if p.cursor >= len(p.crew) {
			p.cursor = 0
		}
		// Only a worker that is ready has said whether it has a lane.
		if w := p.crew[p.cursor]; w.state == Busy && len(w.leases) > 0 &&
			w.leases[0].timeout() == 0 && p.mayGrant(w) {
			at := w.link.Progress(now)
			if at.Awake && at.Unbegun < most && w.busyFor(at, now) < stalledAfter {
				most, best = at.Unbegun, w
			}
			if most == 0 {
				break
			}
		}
		p.cursor++
	}
	return best
}

// watchAhead is part of a Tick: nothing sits behind a slow task for longer than until the next one.
// Nobody else may come: the collector may be in a callback, and a silent worker that runs dry says so
// only while tasks are queued. Where all tell of each task, relieve is called when one has room.
// Behind a slow task of the only worker nobody would be sooner.
func (p *Pool) watchAhead(now time.Time) {
	if p.ahead == 0 || len(p.workers) == 1 {
		return
	}
	for _, w := range p.crew {
		if len(w.leases) > 1 && w.state == Busy && w.link.Progress(now).Silent && !p.unburden(w, now) {
			p.arm(now.Add(stalledAfter))
		}
	}
}

// relieve takes back what sits behind tasks that have become slow. With one worker that would gain
// nothing, and through a socket what comes back is out of order where the worker reads meanwhile.
func (p *Pool) relieve(now time.Time) {
	if len(p.workers) == 1 {
		return
	}
	for _, w := range p.crew {
		if len(w.leases) > 1 && w.state == Busy {
			p.unburden(w, now)
		}
	}
}

// unburden takes back what sits behind a worker's task if that has become slow.
func (p *Pool) unburden(w *worker, now time.Time) (slow bool) {
	at := w.link.Progress(now)
	if w.busyFor(at, now) <= stalledAfter {
		return false
	}
	if keep := w.next(at); at.Unbegun > keep {
		p.takeBack(w, keep)
	}
	return true
}

// next is 1 where a worker has begun none of its tasks: the first stays, as its next one. Whether it
// waits for too long is for rescue to say.
func (w *worker) next(at Progress) (keep int) {
	if at.Unbegun >= len(w.leases) {
		return 1
	}
	return 0
}

// busyFor is how long a worker has been at its task, or has had one and not begun it.
func (w *worker) busyFor(at Progress, now time.Time) time.Duration {
	switch {
	case at.Began:
		return at.Busy
	case w.sent.After(w.since):
		return now.Sub(w.sent)
	}
	return now.Sub(w.since)
}

// steal takes back what busy workers have not begun, where nothing is queued and it is worth it:
// half of what one has, from the most loaded first, all of it where it sits behind a slow task.
func (p *Pool) steal(now time.Time) {
	if p.ahead == 0 || p.queue.len() > 0 {
		return
	}
	for range maxCandidates {
		var victim *worker
		most, keep := 0, 0
		for _, w := range p.workers {
			if len(w.leases) < 2 || w.state != Busy {
				continue
			}
			at := w.link.Progress(now)
			stalled := w.busyFor(at, now) > stalledAfter
			switch next := w.next(at); {
			case at.Unbegun-next <= most:
			case stalled:
				victim, most, keep = w, at.Unbegun-next, next
			case p.worthWaking(w, at.Unbegun):
				victim, most, keep = w, at.Unbegun-next, max(at.Unbegun/2, next)
			}
		}
		if victim == nil {
			return
		}
		p.takeBack(victim, keep)
		if p.queue.len() > 0 {
			return
		}
	}
}

// worthWaking says whether so many unbegun tasks of a worker take longer than waking another one.
func (p *Pool) worthWaking(w *worker, unbegun int) bool {
	if p.cfg.SendAhead == AheadAlways {
		return true
	}
	return unbegun > p.paces[w.leases[len(w.leases)-1].Function].within(wakeTime)
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

// rescue takes back first tasks that have not been begun for too long, where another worker is idle.
func (p *Pool) rescue(now time.Time) {
	if len(p.idle) == 0 {
		return
	}
	for _, w := range p.workers {
		if w.state != Busy {
			continue
		}
		at := w.link.Progress(now)
		if at.Unbegun == 0 || at.Began {
			continue
		}
		if left := unreadAfter - w.busyFor(at, now); left > 0 {
			p.looking = true
			p.arm(now.Add(left))
			continue
		}
		w.missed = true
		p.takeBack(w, 0)
	}
}

// takeBack returns what a worker has not begun to the front of the queue, all but keep tasks.
func (p *Pool) takeBack(w *worker, keep int) {
	before := w.ahead()
	p.queue.putBack(w.revoke(w.link.TakeBack(keep))...)
	p.ahead += w.ahead() - before
	if w.state == Busy && len(w.leases) == 0 { // it had not read even the first
		p.rest(w)
	}
}
