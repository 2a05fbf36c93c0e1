// SPDX-License-Identifier: MIT

package gopool

import (
	"slices"
	"time"
)

// This file holds what workers report, and the fate of worker and task that follows from it.

// Hello records a worker's first message.
//
// Errors: ErrUnknownWorker, *TransitionError.
func (p *Pool) Hello(id WorkerID) error {
	return p.move(id, Initializing, func(w *worker) { w.started = true })
}

// Ready records that a worker's initializer returned; it gets a task at once if one waits.
//
// Errors: ErrUnknownWorker, *TransitionError.
func (p *Pool) Ready(id WorkerID) error {
	return p.move(id, Idle, func(w *worker) {
		w.ready, w.readySince = true, p.now()
		if p.limits.MaxAge > 0 {
			p.arm(w.readySince.Add(p.limits.MaxAge))
		}
		p.guard.succeeded()
		p.rest(w)
		p.dispatch()
		p.appetite()
	})
}

// InitFailed records why a worker can't go on; its process is about to end.
//
// Errors: ErrUnknownWorker.
func (p *Pool) InitFailed(id WorkerID, text string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	w, ok := p.workers[id]
	if !ok {
		return ErrUnknownWorker
	}
	w.reason = text
	return nil
}

// move takes a worker to its next state. What a worker says after it was told to go is late,
// not wrong, and changes nothing.
func (p *Pool) move(id WorkerID, next WorkerState, then func(*worker)) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	w, ok := p.workers[id]
	if !ok {
		return ErrUnknownWorker
	}
	if w.state == Stopping || w.state == Exited {
		w.started = true
		return nil
	}
	if err := w.moveTo(next); err != nil {
		return err
	}
	then(w)
	return nil
}

// IsOldest says whether a worker's outcome of a task is the next to come: tasks end in the order in
// which it was given them. Also where the worker has no such task: Settle says what is wrong.
func (p *Pool) IsOldest(id WorkerID, task TaskID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.workers[id]
	if w == nil || len(w.leases) == 0 || w.leases[0].ID == task {
		return true
	}
	return !slices.ContainsFunc(w.leases, func(t *Task) bool { return t.ID == task })
}

// Settle closes the lease of a task with the outcome that its worker sent, and gives the worker
// its next task.
//
// Errors: ErrUnknownWorker, *LeaseError; ErrDropped where nobody waits for the outcome: the task was
// dropped by Terminate, cut short, or will run again. The outcome and its region then stay with
// the caller.
func (p *Pool) Settle(id WorkerID, task TaskID, o *Outcome) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	w, ok := p.workers[id]
	switch {
	case !ok:
		return ErrUnknownWorker
	case p.terminated:
		return ErrDropped
	}
	before := w.ahead()
	t := w.settle(task)
	if t == nil && w.asked && w.state == Stopping {
		return ErrDropped // it was about to finish when its task was cut short
	}
	if t == nil {
		return &LeaseError{Worker: id, Task: task}
	}
	w.link.Settled(t)
	p.ahead += w.ahead() - before
	now := p.now()
	if o.Ended.IsZero() || o.Ended.After(now) || o.Ended.Before(w.since) {
		o.Ended, o.Took = now, now.Sub(w.since)
	}
	p.paces.observe(t.Function, o.Took)
	w.since = o.Ended
	w.proven, w.missed = true, false
	p.guard.worked()
	if len(w.leases) > 0 {
		p.watch(w, w.leases[0], now)
	}
	if w.state == Busy {
		p.occupy(w, now)
	}
	delivered := p.conclude(t, o)
	if p.queue.len() > 0 {
		p.dispatch() // where tasks were taken back from a worker that is idle now
	}
	p.appetite()
	if !delivered {
		return ErrDropped
	}
	return nil
}

// occupy gives a worker that settled a task more to do; where there is nothing it becomes idle,
// or retires after its last task.
func (p *Pool) occupy(w *worker, now time.Time) {
	p.feed(w, now)
	switch {
	case len(w.leases) > 0 || w.state != Busy:
	case w.retire:
		w.state = Idle
		p.end(w)
		p.leave(w)
	case !p.mayGrant(w):
		w.state = Retiring
		p.leave(w)
	default:
		p.rest(w)
		p.dispatch()
	}
}

// Fail ends a worker that broke the protocol; the task that it holds fails with the reason once
// its process is gone.
//
// Errors: ErrUnknownWorker.
func (p *Pool) Fail(id WorkerID, reason string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	w, ok := p.workers[id]
	if !ok {
		return ErrUnknownWorker
	}
	p.fail(w, reason)
	return nil
}

// Exited records that a worker's process ended. Everything that it had sent must have been
// settled before. What it had not begun goes to other workers; what it had begun waits for the
// exit status.
//
// Errors: ErrUnknownWorker.
func (p *Pool) Exited(id WorkerID) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	w, ok := p.workers[id]
	if !ok {
		return ErrUnknownWorker
	}
	if w.state == Exited {
		return nil
	}
	wanted := w.asked || w.state == Retiring
	p.dropIdle(w)
	w.state = Exited
	p.takeBack(w, 0)
	p.ahead -= w.ahead() // what is left was begun and can only be lost
	switch {
	case wanted || w.proven || len(w.leases) > 0: // a task that kills its worker is used up
	case w.ready:
		p.guard.idled()
	default:
		p.guard.startFailed()
	}
	p.dispatch()
	p.appetite()
	p.sink.WorkerExited(id)
	return nil
}

// Asked says whether a worker was asked to go, by whatever way: its end is no crash then.
func (p *Pool) Asked(id WorkerID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	w, ok := p.workers[id]
	return ok && (w.asked || p.terminated)
}

// Began records which task an ended worker had begun last, by the note that it left. A task that it
// had read but not begun, since it was killed at that very moment, goes to another worker then.
//
// Errors: ErrUnknownWorker.
func (p *Pool) Began(id WorkerID, task TaskID) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	w, ok := p.workers[id]
	if !ok {
		return ErrUnknownWorker
	}
	w.began, w.noted = task, true
	return nil
}

// Verdict says what Python does after it has reaped a worker.
type Verdict struct {
	Replace bool          // start another worker
	After   time.Duration // but not before this pause
}

// Reaped records the exit status of an ended worker, settles the task that it had begun, and
// forgets the worker.
//
// Errors: ErrUnknownWorker.
func (p *Pool) Reaped(id WorkerID, exit ExitStatus) (Verdict, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w, ok := p.workers[id]
	if !ok {
		return Verdict{}, ErrUnknownWorker
	}
	delete(p.workers, id)
	p.crew = slices.DeleteFunc(p.crew, func(o *worker) bool { return o == w })
	p.stats.exited(exit, w)
	p.settleLost(w, exit)
	if !w.ready && !w.asked && w.reason == "" && wasKilled(exit) {
		p.guard.startKilled()
	}
	if !w.ready && p.guard.exhausted() && !p.anyReady() {
		p.breakPool(w.lost(exit, nil, p.now()))
	}
	p.dispatch() // a task that runs again
	p.appetite()
	p.settleDown()
	return p.verdict(), nil
}

// maxUnbegun is how many workers in a row may end with a task read and not begun. Chance kills no
// more; beyond it the reading itself is what ends them.
const maxUnbegun = 5

// settleLost settles what an ended worker had begun; what it had only read goes back to the queue.
func (p *Pool) settleLost(w *worker, exit ExitStatus) {
	leases, now := w.leases, p.now()
	w.leases = nil
	begun := w.begun(leases)
	var unbegun []*Task
	for i, t := range leases {
		switch {
		case i < begun || t.unbegun >= maxUnbegun:
			p.conclude(t, &Outcome{Status: StatusLost, Failure: w.lost(exit, t, now)})
		case p.broken != nil:
			p.finish(t, &Outcome{Status: StatusBroken, Failure: p.broken})
		default:
			t.unbegun++
			unbegun = append(unbegun, t)
		}
	}
	p.queue.putBack(unbegun...)
}

// begun is how many of the leases of an ended worker it had begun: tasks are begun in the order in
// which they were sent, so all up to the one that it noted last.
func (w *worker) begun(leases []*Task) int {
	if !w.noted {
		return len(leases)
	}
	return 1 + slices.IndexFunc(leases, func(t *Task) bool { return t.ID == w.began })
}

func (p *Pool) verdict() Verdict {
	if !p.wanted() {
		return Verdict{}
	}
	return Verdict{Replace: true, After: p.guard.backoff()}
}

// NotStarted records that the operating system refused a process for a worker.
func (p *Pool) NotStarted() Verdict {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.guard.startFailed()
	if p.guard.exhausted() && !p.anyReady() {
		p.breakPool(&Failure{Text: "the operating system refuses to start a process"})
	}
	return p.verdict()
}

func (p *Pool) anyReady() bool {
	for _, w := range p.workers {
		if w.ready {
			return true
		}
	}
	return false
}

// breakPool fails every task that waits, and every one still to come.
func (p *Pool) breakPool(cause *Failure) {
	if p.broken != nil || p.finishing() {
		return
	}
	p.broken = cause
	p.tell(EventBroken, nil, nil, cause.Text)
	delayed := p.delayed
	p.delayed = nil
	for _, t := range p.queue.drain() {
		p.finish(t, &Outcome{Status: StatusBroken, Failure: cause})
	}
	for _, d := range delayed {
		p.finish(d.task, &Outcome{Status: StatusBroken, Failure: cause})
	}
}
