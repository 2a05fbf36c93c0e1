// SPDX-License-Identifier: MIT

package gopool

import (
	"errors"
	"fmt"
)

var (
	// ErrPoolClosed is returned by Submit after Close: no task is taken any more.
	ErrPoolClosed = errors.New("gopool: pool is closed")
	// ErrPoolTerminated is returned by Submit after Terminate: the task will never run.
	ErrPoolTerminated = errors.New("gopool: pool was terminated")
	// ErrDropped is returned by Settle for an outcome that nobody waits for; its worker is well.
	ErrDropped = errors.New("gopool: nobody waits for this outcome")
	// ErrUnknownWorker is returned where a worker's number is not, or no longer, in the pool.
	ErrUnknownWorker = errors.New("gopool: no such worker")
	// ErrUnsendable is returned by Link.Send for a task that no worker could be sent, such as
	// one whose region was closed. Nothing was sent; the task fails, the worker is well.
	ErrUnsendable = errors.New("gopool: the task can't be sent")
	// ErrLinkFull is returned by Link.Send when the message does not fit right now. Nothing
	// was sent; the task stays with the pool.
	ErrLinkFull = errors.New("gopool: the worker's link is full")
)

// LeaseError is returned by Settle for an outcome of a task that the worker does not hold: it
// was settled before, taken back, or never granted. The outcome is dropped; the caller ends the
// worker, which broke the protocol.
type LeaseError struct {
	Worker WorkerID
	Task   TaskID
}

func (e *LeaseError) Error() string {
	return fmt.Sprintf("gopool: worker %d reported an outcome of task %d, which it does not hold",
		e.Worker, e.Task)
}

// TransitionError is returned for a move that the table of worker states does not have. What
// the worker said is dropped; the caller ends the worker.
type TransitionError struct {
	Worker   WorkerID
	From, To WorkerState
}

func (e *TransitionError) Error() string {
	return fmt.Sprintf("gopool: worker %d can't go from %s to %s", e.Worker, e.From, e.To)
}
