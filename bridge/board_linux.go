// SPDX-License-Identifier: MIT

package bridge

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"gopool/gopool"
)

// Board is what one Python process has of Go: the poller, and the register of processes.
type Board struct {
	Poller    *Poller
	Processes *gopool.Processes
	inbox     *inbox
}

// NewBoard starts the poller.
func NewBoard() (*Board, error) {
	poller, err := NewPoller()
	if err != nil {
		return nil, err
	}
	// The runtime opens its own poller at the first timer, which its garbage collector sets at
	// a time of its own. Now is when Python looks what descriptors belong to Go.
	time.AfterFunc(time.Hour, func() {}).Stop()
	return &Board{Poller: poller, Processes: gopool.NewProcesses(), inbox: newInbox()}, nil
}

// PoolWires ties a pool to Python: outcomes through a ring, events through a second eventfd.
type PoolWires struct {
	Pool      *gopool.Pool
	Outcomes  *Outcomes
	Events    *Events
	Functions Functions
	ring      []byte
	alarm     *Alarm

	// lanes is held for reading by whoever looks into lanes, which the pool's lock and links'
	// locks may be taken under, and for writing by whoever maps or unmaps one.
	lanes     sync.RWMutex
	links     []*WorkerLink
	look      atomic.Bool // lanes must be looked at once more
	listening atomic.Bool // the collector sleeps: new lanes must be told
	spin      spinning    // of Borrow, which one thread at a time is in
}

// OpenPool makes a pool whose outcomes go into the ring that lies in ringFD.
func (b *Board) OpenPool(cfg gopool.Config, ringFD, ringSize, wakeFD, eventFD int) (*PoolWires, error) {
	ring, err := MapShared(ringFD, ringSize)
	if err != nil {
		return nil, err
	}
	w := &PoolWires{Outcomes: NewOutcomes(ring, wakeFD), Events: NewEvents(eventFD), ring: ring}
	w.Pool = gopool.NewPool(cfg, w)
	w.alarm = b.Poller.NewAlarm(w.tick)
	return w, nil
}

// Deliver implements gopool.Sink.
func (w *PoolWires) Deliver(o *gopool.Outcome) { w.Outcomes.Deliver(o) }

// Drained implements gopool.Sink.
func (w *PoolWires) Drained() { w.Outcomes.Drained() }

// WorkerExited implements gopool.Sink.
func (w *PoolWires) WorkerExited(id gopool.WorkerID) {
	w.Events.Add(int(id))
	w.Outcomes.Poke() // nobody may wait for events yet: see _crew.Maintenance.ensure_started
}

// Ended implements gopool.Sink.
func (w *PoolWires) Ended() {
	w.alarm.Unset()
	w.Events.End()
}

// Alarm implements gopool.Sink.
func (w *PoolWires) Alarm(at time.Time) { w.alarm.Set(at) }

// Summon implements gopool.Sink.
func (w *PoolWires) Summon() {
	w.Events.Add(Summoned)
	w.Outcomes.Poke() // as WorkerExited
}

// Look implements gopool.Sink.
func (w *PoolWires) Look() { w.look.Store(true) }

// Event implements gopool.Sink.
func (w *PoolWires) Event(e *gopool.Event) { w.Outcomes.Tell(e) }

// Release unmaps the ring. Only after the last worker is gone and Python reads no more.
func (w *PoolWires) Release() error {
	w.alarm.Unset()
	w.part(func(*WorkerLink) bool { return true }) // of a pool that never listened
	return UnmapShared(w.ring)
}

// Adopted is a process that the poller watches.
type Adopted struct {
	ID    gopool.ProcessID
	board *Board
	watch *Watch
}

// Adopt takes a started process into the register and waits for its end.
func (b *Board) Adopt(pid, pidfd int) (*Adopted, error) {
	a := &Adopted{board: b}
	ready := make(chan struct{}) // closed once a is complete; the end may come before
	var err error
	a.watch, err = b.Poller.Add(pidfd, func() {
		<-ready
		a.watch.Remove()
		b.Processes.Exited(a.ID)
	})
	if err != nil {
		return nil, fmt.Errorf("watching process %d: %w", pid, err)
	}
	a.ID = b.Processes.Adopt(pid)
	close(ready)
	return a, nil
}

// Reaped records the exit status and stops watching, after which Python may close the pidfd.
func (a *Adopted) Reaped(exit gopool.ExitStatus) error {
	a.watch.Remove()
	return a.board.Processes.Reaped(a.ID, exit)
}

// MapShared maps a descriptor's memory, shared with whoever maps it as well, but not with children
// that this process forks: what they did to it would be taken for a worker's doing.
func MapShared(fd, size int) ([]byte, error) {
	mem, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("bridge: mapping %d bytes: %w", size, err)
	}
	if err := unix.Madvise(mem, unix.MADV_DONTFORK); err != nil {
		return nil, errors.Join(fmt.Errorf("bridge: keeping memory out of forks: %w", err),
			UnmapShared(mem))
	}
	return mem, nil
}

// UnmapShared undoes MapShared; nobody may touch the memory any more.
func UnmapShared(mem []byte) error {
	if err := unix.Munmap(mem); err != nil {
		return fmt.Errorf("bridge: unmapping: %w", err)
	}
	return nil
}
