// SPDX-License-Identifier: MIT

package gopool

import (
	"slices"
	"time"
)

// WorkerID names a worker within its pool, counted from 1.
type WorkerID uint32

// Link is the pool's way to one worker process. The pool calls it with its lock held, so no
// method blocks or calls back.
type Link interface {
	// Send hands a task to the worker. ErrLinkFull: not now. Any other error: this worker
	// can't be reached any more. In both cases nothing was sent.
	Send(t *Task) error
	// Settled says that the worker has done a task, so it knows what that task needed.
	Settled(t *Task)
	// Stop asks the worker to finish and exit normally.
	Stop() error
	// Progress says how far the worker is with what was sent, as it stands now: nobody tells.
	Progress(now time.Time) Progress
	// TakeBack returns the ids of the youngest sent tasks that the worker has not begun, all but
	// keep of them (or all), oldest first; it will never begin them.
	TakeBack(keep int) []TaskID
	// Hungry has the worker tell when it goes to sleep, or not: tasks are queued.
	Hungry(yes bool)
	// Interrupt sends SIGTERM, Kill sends SIGKILL, to the worker alone or to the tree of
	// processes below it as well; both do nothing to an ended process.
	Interrupt(tree bool)
	Kill(tree bool)
	// Memory is what the worker's process has resident, in bytes; 0 where nobody can say.
	Memory() uint64
	// HasChildren says whether a child of the worker's process runs.
	HasChildren() bool
}

// Progress is how far a worker is with the tasks that it was sent.
type Progress struct {
	Silent  bool          // it does not tell of each task that it has done
	Awake   bool          // it will see a task without being woken
	Unbegun int           // tasks that it may not have begun
	Began   bool          // it is known to run a task
	Busy    time.Duration // how long it has been at that
}

// worker is the pool's record of one worker process. Pool.mu guards it.
type worker struct {
	id      WorkerID
	pid     int
	link    Link
	state   WorkerState
	leases  []*Task   // granted and not settled, oldest first
	space   []*Task   // what leases lies in
	granted int       // tasks ever granted and not taken back; counts toward Config.MaxTasks
	since   time.Time // when the oldest lease became the worker's next task
	sent    time.Time // when it was sent a task last
	reason  string    // why it was ended or failed, in its own or the transport's words
	started bool      // its first message came
	ready   bool      // its initializer returned
	proven  bool      // it has settled a task
	asked   bool      // it was asked to go
	began   TaskID    // the last task that it has begun, by its own note
	noted   bool      // began means something
	retire  bool      // it is to end once it runs no task
	missed  bool      // it left its first task unread for too long, and has done none since
	overdue bool      // it was killed for not being ready in time
	added   time.Time
	// readySince means something once it is ready.
	readySince time.Time
	// idleSince means something while it is idle and the pool has an idle timeout.
	idleSince time.Time
	killAt    time.Time // when it is killed if it has not ended; zero: never
	leaving   bool      // killAt is for one that ends in order (leaving.go)
}

// holds says whether it has a lease of a task of the job.
func (w *worker) holds(job uint64) bool {
	for _, t := range w.leases {
		if t.Job == job {
			return true
		}
	}
	return false
}

func (w *worker) moveTo(next WorkerState) error {
	if !w.state.canMoveTo(next) {
		return &TransitionError{Worker: w.id, From: w.state, To: next}
	}
	w.state = next
	return nil
}

// settle removes the lease of a task and returns it, or nil where the worker does not hold it. It is
// the oldest, but where the worker breaks the protocol or tasks are taken back.
func (w *worker) settle(id TaskID) *Task {
	for i, t := range w.leases {
		switch {
		case t.ID != id:
			continue
		case i == 0:
			w.leases[0] = nil
			w.leases = w.leases[1:]
		default:
			w.leases = slices.Delete(w.leases, i, i+1)
		}
		if len(w.leases) == 0 {
			w.leases = w.space[:0]
		}
		return t
	}
	return nil
}

// lease adds a task to those that the worker holds.
func (w *worker) lease(t *Task) {
	if len(w.leases) == cap(w.leases) { // the space begins anew, or is too small
		w.space = append(make([]*Task, 0, max(8, 2*len(w.leases))), w.leases...)
		w.leases = w.space
	}
	w.leases = append(w.leases, t)
}

// ahead is the number of tasks that it holds and can't be running.
func (w *worker) ahead() int { return max(0, len(w.leases)-1) }

// revoke removes the leases of tasks that were taken back and returns them, oldest first.
func (w *worker) revoke(ids []TaskID) []*Task {
	tasks := make([]*Task, 0, len(ids))
	for _, id := range ids {
		if t := w.settle(id); t != nil {
			tasks = append(tasks, t)
		}
	}
	w.granted -= len(tasks)
	return tasks
}

// lost is the failure that a lease of this worker ends with.
func (w *worker) lost(exit ExitStatus, held *Task, now time.Time) *Failure {
	f := &Failure{PID: w.pid, Exit: exit, Started: w.started, Text: w.reason}
	if held != nil {
		f.RanFor = now.Sub(w.since)
	}
	return f
}
