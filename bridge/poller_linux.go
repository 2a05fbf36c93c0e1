// SPDX-License-Identifier: MIT

package bridge

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Handler is told that its descriptor is readable. It runs on the poller's goroutine, so it must
// not block.
type Handler func()

// Poller waits for all descriptors of the process in one goroutine, asleep while nothing
// happens. Level-triggered: a handler that leaves something unread is called again.
//
// Python owns every descriptor that is added; it removes one here before closing it.
type Poller struct {
	epoll int
	wake  int // eventfd: has the loop look at its alarms, or end

	mu       sync.Mutex // guards what follows; never held while a handler runs
	handlers map[uint64]Handler
	last     uint64
	alarms   map[*Alarm]struct{} // those that are set
	until    time.Time           // when the loop wakes up by itself; zero: never
	closing  bool

	done chan struct{} // closed by run
}

// Alarm calls a handler at a moment. It is set again for each call.
type Alarm struct {
	poller *Poller
	ring   Handler
	at     time.Time
}

// Watch is one descriptor that the poller waits for.
type Watch struct {
	poller *Poller
	fd     int
	key    uint64
}

// NewPoller starts the goroutine. Close ends it.
func NewPoller() (*Poller, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("bridge: epoll_create1: %w", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("bridge: eventfd: %w", err), unix.Close(epoll))
	}
	p := &Poller{epoll: epoll, wake: wake, handlers: make(map[uint64]Handler),
		alarms: make(map[*Alarm]struct{}), done: make(chan struct{})}
	if err := p.control(unix.EPOLL_CTL_ADD, wake, 0, unix.EPOLLIN); err != nil {
		return nil, errors.Join(err, unix.Close(wake), unix.Close(epoll))
	}
	go p.run()
	return p, nil
}

// FDs are the poller's own descriptors: a forked child, which has no use for them, closes them.
func (p *Poller) FDs() (epoll, wake int) { return p.epoll, p.wake }

// Add waits for fd to become readable or to hang up, until Remove.
func (p *Poller) Add(fd int, h Handler) (*Watch, error) {
	p.mu.Lock()
	p.last++
	w := &Watch{poller: p, fd: fd, key: p.last}
	p.handlers[w.key] = h
	p.mu.Unlock()
	if err := p.control(unix.EPOLL_CTL_ADD, fd, w.key, unix.EPOLLIN); err != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		w.forgetLocked()
		return nil, err
	}
	return w, nil
}

// Remove ends the waiting; a second one does nothing. A call of the handler that already began
// goes on.
func (w *Watch) Remove() {
	// The lock is held over both: who finds the watch forgotten may close the descriptor, and its
	// number may be another's at once.
	w.poller.mu.Lock()
	defer w.poller.mu.Unlock()
	if w.forgetLocked() {
		// It fails only where the watch is paused, or a hostile user closed the descriptor.
		_ = w.poller.control(unix.EPOLL_CTL_DEL, w.fd, 0, 0)
	}
}

// Pause stops the calls of the handler until Resume. The descriptor leaves the epoll for that time:
// it would report a hang-up whatever it was asked for, and the poller would spin.
func (w *Watch) Pause() { w.move(unix.EPOLL_CTL_DEL) }

// Resume undoes Pause. After Remove it does nothing, as Pause: the descriptor's number may be
// another worker's by then.
func (w *Watch) Resume() { w.move(unix.EPOLL_CTL_ADD) }

// move fails only where it has nothing to do, and where a hostile user closed the descriptor. The
// lock is held so that no Remove comes between the question and the answer.
func (w *Watch) move(op int) {
	w.poller.mu.Lock()
	defer w.poller.mu.Unlock()
	if w.poller.handlers[w.key] != nil {
		_ = w.poller.control(op, w.fd, w.key, unix.EPOLLIN)
	}
}

// forgetLocked makes the key unknown: an event that the kernel reported just before finds no
// handler, even if the descriptor's number is in use again. The poller's lock is held.
func (w *Watch) forgetLocked() (known bool) {
	_, known = w.poller.handlers[w.key]
	delete(w.poller.handlers, w.key)
	return known
}

// NewAlarm makes an alarm that is not set.
func (p *Poller) NewAlarm(ring Handler) *Alarm { return &Alarm{poller: p, ring: ring} }

// Set has the handler called at a moment, instead of at the one set before.
func (a *Alarm) Set(at time.Time) {
	p := a.poller
	p.mu.Lock()
	defer p.mu.Unlock()
	a.at = at
	p.alarms[a] = struct{}{}
	if p.until.IsZero() || at.Before(p.until) {
		p.until = at
		signal(p.wake)
	}
}

// Unset forgets the moment. A call that already began goes on.
func (a *Alarm) Unset() {
	a.poller.mu.Lock()
	defer a.poller.mu.Unlock()
	delete(a.poller.alarms, a)
}

// due takes the alarms whose time has come.
func (p *Poller) due() []*Alarm {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.alarms) == 0 {
		return nil
	}
	var due []*Alarm
	now := time.Now()
	for a := range p.alarms {
		if !now.Before(a.at) {
			due = append(due, a)
			delete(p.alarms, a)
		}
	}
	return due
}

// patience is how long the loop may sleep, in milliseconds, at least until the next alarm; -1: for
// ever.
func (p *Poller) patience() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.until = time.Time{}
	for a := range p.alarms {
		if p.until.IsZero() || a.at.Before(p.until) {
			p.until = a.at
		}
	}
	if p.until.IsZero() {
		return -1
	}
	wait := time.Until(p.until) + time.Millisecond - 1 // rounded up
	return int(min(max(wait, 0), maxPatience) / time.Millisecond)
}

// maxPatience keeps the milliseconds within what epoll_wait takes.
const maxPatience = time.Hour

// Close ends the goroutine and waits for it. Not to be called from a handler.
func (p *Poller) Close() error {
	p.mu.Lock()
	p.closing = true
	p.mu.Unlock()
	if _, err := unix.Write(p.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}); err != nil {
		return fmt.Errorf("bridge: waking the poller: %w", err)
	}
	<-p.done
	return errors.Join(unix.Close(p.wake), unix.Close(p.epoll))
}

func (p *Poller) control(op, fd int, key uint64, events uint32) error {
	ev := unix.EpollEvent{Events: events, Fd: int32(uint32(key)), Pad: int32(uint32(key >> 32))}
	if err := unix.EpollCtl(p.epoll, op, fd, &ev); err != nil {
		return fmt.Errorf("bridge: epoll_ctl of descriptor %d: %w", fd, err)
	}
	return nil
}

// eventsPerWait is how many events one epoll_wait may report (arbitrary: more than most pools
// have workers).
const eventsPerWait = 128

func (p *Poller) run() {
	defer close(p.done)
	events := make([]unix.EpollEvent, eventsPerWait)
	for {
		for _, a := range p.due() {
			a.ring()
		}
		n, err := unix.EpollWait(p.epoll, events, p.patience())
		if err != nil && !errors.Is(err, unix.EINTR) {
			return // a hostile user closed the descriptor: nothing can be watched any more
		}
		for i := range max(n, 0) {
			key := uint64(uint32(events[i].Fd)) | uint64(uint32(events[i].Pad))<<32
			if key == 0 {
				if p.woken() {
					return
				}
				continue
			}
			if h := p.handler(key); h != nil {
				h()
			}
		}
	}
}

// woken empties the eventfd of Set and Close, and says whether it was Close.
func (p *Poller) woken() bool {
	var counter [8]byte
	_, _ = unix.Read(p.wake, counter[:])
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closing
}

func (p *Poller) handler(key uint64) Handler {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.handlers[key]
}
