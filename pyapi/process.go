// SPDX-License-Identifier: MIT

package pyapi

import (
	"sync"

	"gopool/bridge"
	"gopool/gopool"
)

// board starts at the first use and lives as long as the process.
var board = sync.OnceValues(bridge.NewBoard)

var processes handles[*bridge.Adopted]

// ProtocolVersion is the version of the wire protocol that this build speaks.
func ProtocolVersion() int { return int(bridge.Version) }

// PollerFD returns the i-th descriptor that belongs to Go: 0 the epoll, 1 its eventfd. A forked
// child closes them.
func PollerFD(i int) int {
	b, err := board()
	if err != nil {
		return codeOf(err)
	}
	epoll, wake := b.Poller.FDs()
	switch i {
	case 0:
		return epoll
	case 1:
		return wake
	}
	return codeBadArgument
}

// ProcessAdopt takes a started process into the register; the result is its handle. The pidfd
// stays Python's, to be closed after ProcessReaped.
func ProcessAdopt(pid, pidfd int) int {
	b, err := board()
	if err != nil {
		return codeOf(err)
	}
	adopted, err := b.Adopt(pid, pidfd)
	if err != nil {
		return codeOf(err)
	}
	return processes.put(adopted)
}

// ProcessReaped records the exit code (known is 0 where nobody can say) and ends the handle.
func ProcessReaped(process, exitCode, known int) int {
	adopted, err := processes.take(process)
	if err != nil {
		return codeOf(err)
	}
	return codeOf(adopted.Reaped(gopool.ExitStatus{Code: exitCode, Known: known != 0}))
}

// ProcessStat returns a counter of the register: 0 adopted, 1 ended, 2 ended in failure.
func ProcessStat(which int) int {
	b, err := board()
	if err != nil {
		return codeOf(err)
	}
	s := b.Processes.Stats()
	switch which {
	case 0:
		return s.Adopted
	case 1:
		return s.Exited
	case 2:
		return s.Failed
	}
	return codeBadArgument
}
