// SPDX-License-Identifier: MIT

package gopool

import "time"

// EventKind says what happened. Starts and ends of processes are not among them: Python, which
// makes and reaps them, knows those first.
type EventKind int

const (
	EventTimeout EventKind = iota // a task took too long and was cut short
	EventRetry                    // a task will run again
	EventRetire                   // a worker will go after its task
	EventLimit                    // a worker was ended for its use of memory, a slow start or a slow end
	EventBroken                   // the pool gave up keeping workers alive
)

// Event is something that the pool did by itself.
type Event struct {
	Kind       EventKind
	PID        int // of the worker; 0: none
	Job, Index uint64
	HasTask    bool
	Attempt    int           // runs of the task so far, or 0
	RanFor     time.Duration // of the task
	Text       string
}

func (p *Pool) tell(kind EventKind, w *worker, t *Task, text string) {
	e := Event{Kind: kind, Text: text}
	if w != nil {
		e.PID = w.pid
	}
	if t != nil {
		e.Job, e.Index, e.HasTask, e.Attempt = t.Job, t.Index, true, t.attempts
	}
	if w != nil && t != nil {
		e.RanFor = p.now().Sub(w.since)
	}
	p.sink.Event(&e)
}
