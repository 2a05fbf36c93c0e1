// SPDX-License-Identifier: MIT

package bridge

import (
	"time"

	"golang.org/x/sys/unix"
)

// What the tests of this package see beyond its public names.
const (
	RecordHeader = recordHeader
	PadRecord    = padRecord
	MaxOverflow  = maxOverflow
	MaxRegions   = maxRegions
	MaxMemory    = maxMemory
	StatusEvent  = statusEvent
)

// Send and Receive are the two system calls of a worker's socket.
var (
	Send    = send
	OOBSize = oobSize
)

// Receive receives a message, Peek leaves it where it is.
func Receive(fd int, buf, oob []byte) (frame []byte, passed int, ok bool, err error) {
	return receive(fd, buf, oob, 0)
}

func Peek(fd int, buf, oob []byte) (frame []byte, passed int, ok bool, err error) {
	return receive(fd, buf, oob, unix.MSG_PEEK)
}

// PeekFD is what is asked before a message is received, MustWait what follows.
var PeekFD = peekFD

// MustWait is called as the workers' links do.
func (q *Outcomes) MustWait(socket int, pause, resume func()) bool {
	q.receiving.Lock()
	defer q.receiving.Unlock()
	return q.mustWait(func() bool { return canOpen(socket, 1) }, pause, resume)
}

// SetPatience says how long a result waits whose place somebody else has.
func (q *Outcomes) SetPatience(d time.Duration) { q.scarce.patience = d }

// Claim, Unclaim and Lend are what Borrow is made of.
func (q *Outcomes) Claim() bool                              { return q.claim() }
func (q *Outcomes) Unclaim()                                 { q.unclaim() }
func (q *Outcomes) Lend(job uint64, room int) ([]byte, bool) { return q.lend(job, room) }

// HasChildren says whether a process has a child that has not ended.
func HasChildren(pid, pidfd int) bool { return hasChildren(pid, pidfd) }

// ParseStat returns the state and the parent that a stat file of proc(5) tells.
func ParseStat(text string) (state rune, parent int, ok bool) {
	stat, ok := parseStat(text)
	return stat.state, stat.parent, ok
}

// SignalTreeWithin is SignalTree with other bounds, and with or without the kernel's lists.
func SignalTreeWithin(processes, rounds int, lists bool, pid, pidfd int, sig unix.Signal) error {
	list := childLister(scanForChildren)
	if lists {
		list = listChildren
	}
	return treeWalk{processes, rounds, list}.signal(pid, pidfd, sig)
}
