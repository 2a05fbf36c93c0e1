// SPDX-License-Identifier: MIT

package pyapi

import (
	"errors"

	"golang.org/x/sys/unix"

	"gopool/bridge"
)

// Results of TreeSignal.
const (
	treeSignalled  = 0
	treeEnded      = 1 // the process had ended before; nothing was sent
	treeIncomplete = 2 // a part of the tree was not reached
)

// TreeSignal sends a signal to a process and everything below it. The pidfd stays Python's; -1:
// none. Takes up to some milliseconds, and does not wait for the ends.
func TreeSignal(pid, pidfd, signal int) int {
	if signal < 1 || signal > 64 {
		return codeBadArgument
	}
	err := bridge.SignalTree(pid, pidfd, unix.Signal(signal))
	switch {
	case errors.Is(err, bridge.ErrTreeIncomplete):
		return treeIncomplete
	case errors.Is(err, unix.ESRCH):
		return treeEnded
	case errors.Is(err, unix.EINVAL):
		return codeBadArgument
	case err != nil:
		return codeOf(err)
	}
	return treeSignalled
}
