// SPDX-License-Identifier: MIT

package gopool

import (
	"errors"
	"sync"
	"time"
)

// Config is what a pool is made with.
type Config struct {
	MaxTasks  int // tasks per worker before it retires; 0: no limit
	SendAhead SendAhead
	Now       func() time.Time // nil: time.Now
}

// Sink receives what the pool has to tell Python. It is called with the pool's lock held and
// does not block.
type Sink interface {
	// Deliver hands over one outcome; o.Payload must be copied before it returns.
	Deliver(o *Outcome)
	// Drained says that no outcome will follow.
	Drained()
	// WorkerExited says that a worker's process ended and waits to be reaped.
	WorkerExited(id WorkerID)
	// Ended says that the last worker is gone and none will be added.
	Ended()
	// Alarm asks for a call of Pool.Tick at a moment, instead of what was asked for before.
	Alarm(at time.Time)
	// Summon asks for one more worker.
	Summon()
	// Event tells what the pool did by itself.
	Event(e *Event)
	// Look asks that outcomes which nobody was told of be looked for, once the pool's call has
	// returned.
	Look()
}

// Pool owns the tasks between submission and outcome, and the records of the workers.
type Pool struct {
	cfg  Config
	sink Sink
	now  func() time.Time

	mu         sync.Mutex
	queue      taskQueue
	workers    map[WorkerID]*worker
	crew       []*worker // those that can have tasks, for place
	cursor     int       // where place begins in crew
	idle       []*worker // waiting longest first
	hungry     bool      // tasks are queued, and the workers tell when they go to sleep
	guard      restartGuard
	paces      paces
	limits     Limits
	options    []*Options
	delayed    delayedTasks   // wait for their next attempt
	cancelled  map[uint64]int // jobs whose tasks are dropped, with how many are to come
	alarm      time.Time      // when a Tick was asked for; zero: not
	looking    bool           // the next Tick comes in time for rescue
	summoned   bool           // Sink.Summon was called and no worker came since
	ahead      int            // leases beyond the first of each worker
	closed     bool           // no task will be submitted any more
	terminated bool           // unsettled tasks were dropped
	broken     *Failure       // set when workers can't be kept alive
	drained    bool           // Sink.Drained was called
	ended      bool           // Sink.Ended was called
	lastTask   TaskID
	lastWorker WorkerID
	unsettled  int
	bytes      uint64 // payload of the unsettled tasks
	regions    int    // unsettled tasks that hold a region
	stats      Stats
}

// NewPool makes a pool without workers.
func NewPool(cfg Config, sink Sink) *Pool {
	p := &Pool{cfg: cfg, sink: sink, now: cfg.Now, workers: make(map[WorkerID]*worker),
		paces: make(paces), cancelled: make(map[uint64]int)}
	if p.now == nil {
		p.now = time.Now
	}
	return p
}

// AddWorker takes a worker process into the pool, in state Starting.
func (p *Pool) AddWorker(pid int, link Link) WorkerID {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lastWorker++
	w := &worker{id: p.lastWorker, pid: pid, link: link, added: p.now()}
	p.workers[w.id] = w
	p.crew = append(p.crew, w)
	link.Hungry(p.hungry)
	p.stats.Workers++
	p.summoned = false
	if p.limits.StartTimeout > 0 {
		p.arm(w.added.Add(p.limits.StartTimeout))
	}
	if p.finishing() {
		p.end(w)
	}
	p.summon()
	return w.id
}

// Submit takes a task and starts it at once if a worker is idle. It returns how many bytes of
// payload are unsettled now.
//
// Errors: ErrPoolClosed, ErrPoolTerminated; the task then stays with the caller. In a broken
// pool the task is taken and its outcome says why it can't run.
func (p *Pool) Submit(t *Task) (load uint64, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.refusal(); err != nil {
		return 0, err
	}
	p.attend(p.enter(t))
	return p.bytes, nil
}

// SubmitAll is Submit for many tasks, in their order: it takes all of them or none. They stay where
// they lie until the last of them is settled.
func (p *Pool) SubmitAll(tasks []Task) (load uint64, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.refusal(); err != nil {
		return 0, err
	}
	queued := false
	for i := range tasks {
		queued = p.enter(&tasks[i]) || queued
	}
	p.attend(queued)
	return p.bytes, nil
}

// refusal says why no task is taken any more; nil: it is.
func (p *Pool) refusal() error {
	switch {
	case p.terminated:
		return ErrPoolTerminated
	case p.closed:
		return ErrPoolClosed
	}
	return nil
}

// enter takes a new task, and starts it if a worker is idle; true: it was queued first.
func (p *Pool) enter(t *Task) (queued bool) {
	p.lastTask++
	t.ID = p.lastTask
	p.account(t)
	if p.broken != nil {
		p.finish(t, &Outcome{Status: StatusBroken, Failure: p.broken})
		return false
	}
	if p.queue.len() == 0 && p.place(t) {
		return false
	}
	p.queue.push(t)
	if len(p.idle) > 0 {
		p.dispatch()
	}
	return true
}

// attend sees after new tasks, if any had to be queued.
func (p *Pool) attend(queued bool) {
	if queued {
		p.summon()
		p.appetite()
	}
}

// appetite has workers tell when they go to sleep while tasks are queued. One may have gone to sleep
// just before, with an outcome that nobody was told of: so they are looked at.
func (p *Pool) appetite() {
	if hungry := p.queue.len() > 0; hungry != p.hungry {
		p.hungry = hungry
		for _, w := range p.workers {
			if w.state != Exited {
				w.link.Hungry(hungry)
			}
		}
	}
	if p.hungry {
		p.sink.Look()
	}
}

// Close says that no task will be submitted any more. Workers stop when all tasks are settled.
func (p *Pool) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.settleDown()
}

// Terminate drops every unsettled task without an outcome and ends all workers: idle ones are
// told to stop, the others get SIGTERM. Call KillSurvivors after a time of grace.
func (p *Pool) Terminate() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed, p.terminated = true, true
	p.queue.drain()
	p.delayed = nil
	clear(p.cancelled)
	p.unsettled, p.bytes, p.regions = 0, 0, 0
	for _, w := range p.workers {
		p.end(w)
		clear(w.leases)
		w.leases = w.leases[:0]
	}
	p.ahead = 0
	p.settleDown()
}

// KillSurvivors sends SIGKILL to every worker whose process has not ended.
func (p *Pool) KillSurvivors() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range p.workers {
		if w.state != Exited {
			w.link.Kill(p.limits.Tree)
		}
	}
}

// Load says how much is unsettled: tasks, bytes of their payload, and regions that they hold.
func (p *Pool) Load() (tasks int, bytes uint64, regions int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.unsettled, p.bytes, p.regions
}

// Queued is the number of tasks that no worker holds.
func (p *Pool) Queued() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.queue.len() + len(p.delayed)
}

func (p *Pool) account(t *Task) {
	p.unsettled++
	p.bytes += uint64(len(t.Payload)) + t.Region.Size
	if t.Region.Present() {
		p.regions++
	}
}

// finish hands the outcome of a task over; the task is in no other place any more.
func (p *Pool) finish(t *Task, o *Outcome) {
	p.unsettled--
	p.bytes -= uint64(len(t.Payload)) + t.Region.Size
	if t.Region.Present() {
		p.regions--
	}
	p.forgetCancelled(t.Job)
	p.stats.settled(o.Status)
	o.Job, o.Index, o.TaskRegion = t.Job, t.Index, t.Region.FD
	p.sink.Deliver(o)
	p.settleDown()
}

// finishing says that the pool needs no worker any more.
func (p *Pool) finishing() bool { return p.closed && p.unsettled == 0 }

// settleDown stops the workers once nothing is left to do, and tells when the last is gone.
func (p *Pool) settleDown() {
	if !p.finishing() {
		return
	}
	if !p.drained {
		p.drained = true
		p.sink.Drained()
		if !p.terminated { // Terminate has done it in its own way
			for _, w := range p.workers {
				p.end(w)
			}
		}
	}
	if len(p.workers) == 0 && !p.ended {
		p.ended = true
		p.sink.Ended()
	}
}

// end asks a worker to go: by a Stop message where it will read one soon, so that it flushes what
// it printed; by SIGTERM where, in a terminated pool, it holds a task or has not come up yet.
func (p *Pool) end(w *worker) {
	switch {
	case w.state == Exited || w.state == Stopping && (w.ready || !p.terminated):
		return
	case w.state == Retiring:
		w.state = Stopping
		return
	}
	polite := w.state == Idle || !p.terminated
	p.dropIdle(w)
	w.state, w.asked = Stopping, true
	if !polite || w.link.Stop() != nil {
		w.link.Interrupt(p.limits.Tree)
	}
}

func (p *Pool) dropIdle(w *worker) {
	for i, other := range p.idle {
		if other == w {
			p.idle = append(p.idle[:i], p.idle[i+1:]...)
			return
		}
	}
}

// dispatch grants queued tasks to idle workers, the one that waits longest first. Where nothing is
// queued, what busy workers have not begun is shared with the idle ones.
func (p *Pool) dispatch() {
	if len(p.idle) == 0 {
		return
	}
	now := p.now()
	p.steal(now)
	for len(p.idle) > 0 && p.queue.len() > 0 {
		t := p.next()
		if t == nil || len(p.idle) == 0 { // dropping the last task ends the workers
			return
		}
		w := p.takeIdle(now)
		if p.grant(w, t, now) {
			p.fill(w, now)
		}
	}
}

// takeIdle takes the idle worker that is to have the next task: one that is awake, or the one that
// waits longest. Where somebody has stopped one while it was awake, its turn comes like the others'.
func (p *Pool) takeIdle(now time.Time) *worker {
	last := len(p.idle) - 1
	w := p.idle[last]
	if last > 0 && (w.missed || !w.link.Progress(now).Awake) {
		w = p.idle[0]
		copy(p.idle, p.idle[1:])
	}
	p.idle[last] = nil
	p.idle = p.idle[:last]
	return w
}

// grant opens the lease of a task. A worker that can't be reached is ended, and the task goes
// back to the front of the queue: it was not begun.
func (p *Pool) grant(w *worker, t *Task, now time.Time) bool {
	if err := w.link.Send(t); err != nil {
		// A link that is full for a first task is full for good: descriptors or memory are short.
		if errors.Is(err, ErrUnsendable) || errors.Is(err, ErrLinkFull) && len(w.leases) == 0 {
			p.restore(w)
			p.finish(t, &Outcome{Status: StatusRefused, Failure: &Failure{Text: err.Error()}})
			return false
		}
		p.queue.putBack(t)
		if !errors.Is(err, ErrLinkFull) {
			p.fail(w, err.Error())
		}
		return false
	}
	if len(w.leases) == 0 {
		w.since = now
		p.watch(w, t, now)
	} else {
		if p.ahead == 0 {
			p.arm(now.Add(stalledAfter)) // for watchAhead
		}
		p.ahead++
	}
	w.sent = now
	w.lease(t)
	w.granted++
	w.state = Busy
	return true
}

// restore makes a worker that was about to get its first task wait again.
func (p *Pool) restore(w *worker) {
	if w.state == Idle {
		p.rest(w)
	}
}

// fail ends a worker that broke the protocol or can't be reached.
func (p *Pool) fail(w *worker, reason string) {
	if w.state == Exited {
		return
	}
	if w.reason == "" {
		w.reason = reason
	}
	p.dropIdle(w)
	w.state = Stopping
	w.link.Kill(p.limits.Tree)
}
