// SPDX-License-Identifier: MIT

package gopool

import "time"

// TaskID names a task within its pool; 0 is no task.
type TaskID uint64

// Region is a piece of memory that lies in a descriptor (a memfd) instead of in a frame.
type Region struct {
	FD   int    // -1: no region
	Size uint64 // bytes
}

// NoRegion is the Region of a payload that travels inside its frame.
var NoRegion = Region{FD: -1}

// Present says whether there is a region.
func (r Region) Present() bool { return r.FD >= 0 }

// Task is one payload in and one outcome out. The core looks at none of the bytes.
type Task struct {
	ID       TaskID
	Job      uint64   // the API call that it belongs to; Python's number
	Index    uint64   // its place within the job
	Mode     uint8    // how the worker applies the function; the protocol's number
	Function uint32   // id of the function's definition; 0: inside the payload
	Payload  []byte   // nil where Region is present
	Region   Region   // owned by the submitter, who closes it when the outcome arrives
	Options  *Options // nil: none
	unbegun  int      // workers that ended after they had read it and before they began it
	attempts int      // runs that ended so that it may be run again
}

// Status says how a task ended.
type Status uint8

// The numbers of the first three are the wire protocol's.
const (
	StatusValue     Status = iota // the payload is the pickled result
	StatusError                   // the payload is the user's exception
	StatusEncoding                // result or exception did not pickle
	StatusLost                    // its worker ended while it held the task
	StatusBroken                  // the pool can't keep workers alive
	StatusRefused                 // it can't be sent to any worker
	StatusTimeout                 // it took longer than Options.Timeout
	StatusCancelled               // Pool.Cancel dropped it or cut it short
)

// Outcome is how a task ended, on its way to Python.
type Outcome struct {
	Job, Index uint64
	Status     Status
	Payload    []byte   // valid only during the call that delivers it
	Region     Region   // passes to the receiver, who closes it
	TaskRegion int      // descriptor of the task's own region, free to be closed now; -1: none
	Failure    *Failure // what happened to the worker; nil where there was none
	// Took and Ended are when it ran, by the worker's own clock; 0: it does not say.
	Took  time.Duration
	Ended time.Time
}

// Failure tells what happened to a worker.
type Failure struct {
	PID     int
	Exit    ExitStatus
	Started bool          // it had sent its first message
	RanFor  time.Duration // that it had the task, about; 0 where it held none
	Text    string        // a reason or traceback that the worker or the transport gave; or ""
}

// ExitStatus is a process's exit code in Python's convention: negative for a signal.
type ExitStatus struct {
	Code  int
	Known bool // false where somebody else reaped the process
}
