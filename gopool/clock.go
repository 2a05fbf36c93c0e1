// SPDX-License-Identifier: MIT

package gopool

import "time"

// This file is all that happens because time has passed. The pool has no timer: it asks the sink
// for a call of Tick, only while something will be due, so that an idle pool never wakes up.

// arm asks for a Tick at a moment, unless an earlier one was asked for.
func (p *Pool) arm(at time.Time) {
	if p.alarm.IsZero() || at.Before(p.alarm) {
		p.alarm = at
		p.sink.Alarm(at)
	}
}

// Tick does what is due. It is called when Sink.Alarm asked for it, or later.
func (p *Pool) Tick() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.alarm, p.looking = time.Time{}, false
	now := p.now()
	for _, w := range p.workers {
		p.checkEnding(w, now)
		p.checkStart(w, now)
		p.checkTask(w, now)
		p.checkMemory(w, now)
		p.checkLife(w, now)
	}
	p.wakeDelayed(now)
	p.watchAhead(now)
	p.rescue(now)
	p.dispatch()
	p.appetite()
}

// checkEnding kills a worker whose time to end by itself is over.
func (p *Pool) checkEnding(w *worker, now time.Time) {
	switch {
	case w.killAt.IsZero() || w.state == Exited:
	case now.Before(w.killAt):
		p.arm(w.killAt)
	case w.leaving:
		p.overstayed(w, now)
	default:
		w.killAt = time.Time{}
		w.link.Kill(true)
	}
}

// checkTask cuts a task short that takes longer than it may.
func (p *Pool) checkTask(w *worker, now time.Time) {
	if w.state != Busy || len(w.leases) == 0 || w.leases[0].timeout() == 0 {
		return
	}
	t := w.leases[0] // the only one: nothing is sent behind a task with a timeout
	due := w.since.Add(t.timeout())
	if now.Before(due) {
		p.arm(due)
		return
	}
	p.stats.Timeouts++
	failure := w.lost(ExitStatus{}, t, now)
	p.tell(EventTimeout, w, t, "")
	p.release(w, t)
	p.expel(w, now)
	p.conclude(t, &Outcome{Status: StatusTimeout, Failure: failure})
}

// release takes a task that was begun from its worker.
func (p *Pool) release(w *worker, t *Task) {
	before := w.ahead()
	w.settle(t.ID)
	p.ahead += w.ahead() - before
}

// expel ends a worker that runs what nobody waits for any more: SIGTERM, and SIGKILL after a time
// of grace, for it and for every process below it.
func (p *Pool) expel(w *worker, now time.Time) {
	p.dropIdle(w)
	w.state, w.asked = Stopping, true
	w.killAt, w.leaving = now.Add(p.limits.Grace), false
	p.arm(w.killAt)
	w.link.Interrupt(true)
}
