// SPDX-License-Identifier: MIT

package gopool

// WorkerState says where a worker is in its life.
type WorkerState uint8

// The life of a worker. Python adds it right after the process was started.
const (
	Starting     WorkerState = iota // the process exists, nothing was heard from it
	Initializing                    // said hello, runs the initializer
	Idle                            // waits for a task
	Busy                            // holds at least one lease
	Retiring                        // did its last task (maxtasksperchild), is about to exit
	Stopping                        // was told to stop or is being ended
	Exited                          // the process ended; its status is not known yet
	numWorkerStates
)

var workerStateNames = [numWorkerStates]string{
	"starting", "initializing", "idle", "busy", "retiring", "stopping", "exited",
}

func (s WorkerState) String() string {
	if s < numWorkerStates {
		return workerStateNames[s]
	}
	return "unknown"
}

// legalMoves is the whole state machine: legalMoves[from] lists where a worker may go.
var legalMoves = [numWorkerStates][]WorkerState{
	Starting:     {Initializing, Stopping, Exited},
	Initializing: {Idle, Stopping, Exited},
	Idle:         {Busy, Stopping, Exited},
	Busy:         {Idle, Retiring, Stopping, Exited},
	Retiring:     {Stopping, Exited},
	Stopping:     {Exited},
	Exited:       {},
}

func (s WorkerState) canMoveTo(next WorkerState) bool {
	for _, legal := range legalMoves[s] {
		if legal == next {
			return true
		}
	}
	return false
}
