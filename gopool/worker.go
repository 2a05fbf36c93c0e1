// SPDX-License-Identifier: MIT

package gopool

import "time"

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
	// TakeBack returns the ids of the sent tasks that the worker has not read, oldest first;
	// it will never read them.
	TakeBack() []TaskID
	// Interrupt sends SIGTERM, Kill sends SIGKILL, to the worker alone or to the tree of
	// processes below it as well; both do nothing to an ended process.
	Interrupt(tree bool)
	Kill(tree bool)
	// Memory is what the worker's process has resident, in bytes; 0 where nobody can say.
	Memory() uint64
}

// worker is the pool's record of one worker process. Pool.mu guards it.
type worker struct {
	id      WorkerID
	pid     int
	link    Link
	state   WorkerState
	leases  []*Task   // granted and not settled, oldest first
	granted int       // tasks ever granted and not taken back; counts toward Config.MaxTasks
	since   time.Time // when the oldest lease became the worker's next task
	reason  string    // why it was ended or failed, in its own or the transport's words
	started bool      // its first message came
	ready   bool      // its initializer returned
	proven  bool      // it has settled a task
	asked   bool      // it was asked to go
	began   TaskID    // the last task that it has begun, by its own note
	noted   bool      // began means something
	retire  bool      // it is to end once it runs no task
	reads   bool      // it was seen to have read the first of its leases
	overdue bool      // it was killed for not being ready in time
	added   time.Time
	// readySince means something once it is ready.
	readySince time.Time
	// idleSince means something while it is idle and the pool has an idle timeout.
	idleSince time.Time
	killAt    time.Time // when it is killed if it has not ended; zero: never
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

// settle removes the lease of a task and returns it, or nil where the worker does not hold it.
func (w *worker) settle(id TaskID) *Task {
	for i, t := range w.leases {
		if t.ID == id {
			copy(w.leases[i:], w.leases[i+1:])
			w.leases[len(w.leases)-1] = nil
			w.leases = w.leases[:len(w.leases)-1]
			return t
		}
	}
	return nil
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
