// SPDX-License-Identifier: MIT

package bridge

// Twin: python/gopool/_worker/message.py. Rules: PROTOCOL.md, sections 3 to 5.

// Version is the protocol version of this package.
const Version uint32 = 1

// Kind is the first element of every message.
type Kind uint64

// Kinds from 1 go from parent to worker, those from 16 from worker to parent.
const (
	KindTask   Kind = 1
	KindStop   Kind = 2
	KindLook   Kind = 3
	KindHello  Kind = 16
	KindReady  Kind = 17
	KindDone   Kind = 18
	KindFailed Kind = 19
	KindDozing Kind = 20
)

// Mode says how a task's function is applied.
type Mode uint8

const (
	// ModeCall calls function(*args, **kwds) once; the payload unpickles to (args, kwds).
	ModeCall Mode = 0
	// ModeMap calls function(item) for each item of a tuple; the result is a list.
	ModeMap Mode = 1
	// ModeStarmap calls function(*item) for each item of a tuple; the result is a list.
	ModeStarmap Mode = 2
)

// Status says how a task ended.
type Status uint8

const (
	// StatusValue : the payload is the pickled result.
	StatusValue Status = 0
	// StatusError : the payload is two pickles, the error in words and the exception.
	StatusError Status = 1
	// StatusEncoding is StatusError for an exception that the worker made because the result,
	// or the task's own exception, did not pickle.
	StatusEncoding Status = 2
)

// maxRegion is the largest region in bytes (an off_t holds it).
const maxRegion = 1<<63 - 1

// maxPID is the largest process id (a pid_t holds it).
const maxPID = 1<<31 - 1

// Task is one unit of work for a worker.
type Task struct {
	ID         uint64 // at least 1
	Mode       Mode
	Function   uint32 // 0: the payload holds the function too
	Payload    []byte // inline payload; empty where RegionSize is not 0
	RegionSize uint64 // bytes in the region that comes with the frame; 0: inline
	Definition []byte // pickle by reference of Function; nil: sent before
}

// Hello is a worker's first message, sent before its initializer runs.
type Hello struct {
	Version uint32
	PID     uint32 // as the worker sees it; another number in another pid namespace
	Flags   uint32 // FlagLane; unknown bits are ignored
}

// FlagLane in Hello.Flags says that the worker uses its lane (PROTOCOL.md, section 8).
const FlagLane uint32 = 1

// Done is how one task ended.
type Done struct {
	ID         uint64 // of the task, at least 1
	Status     Status
	Payload    []byte // inline payload; empty where RegionSize is not 0
	RegionSize uint64 // bytes in the region that came with the frame; 0: inline
}

// Failed says that a worker can't go on; it exits right after.
type Failed struct {
	Stage string // what it was at: "initializer"
	Text  string // traceback
}

// FromWorker is a decoded message of a worker. Kind names the only field that means something;
// Ready and Dozing have none.
type FromWorker struct {
	Kind   Kind
	Hello  Hello
	Done   Done
	Failed Failed
}

// ToWorker is a decoded message to a worker. Task means something where Kind is KindTask.
type ToWorker struct {
	Kind Kind
	Task Task
}
