// SPDX-License-Identifier: MIT

package bridge

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// This file is about a process that may open no more descriptors. A message that comes with one would
// be received without it, and a task's result would be lost. So a message is looked at before it is
// received, and left in the socket until a region is closed. Where none is open, the collector gives
// up a descriptor that it keeps for this.

// scarcity is what Outcomes knows of it; Outcomes.mu guards it.
type scarcity struct {
	// tight says that a descriptor was missing, and that there were no two to spare since. Then a
	// place that is free is somebody's, and only the collector says when it is this pool's.
	tight  bool
	taking bool // a place that is free is about to be a task's
	place  placeState
	// A result for which a place was made, and that found it taken, is tried again until then; zero:
	// there is none.
	until    time.Time
	patience time.Duration // how long it is tried
}

// placePatience is how long that may last: other threads of the program open files as well, and close
// them. betweenTries is arbitrary: much less, and much longer than one try takes.
const (
	placePatience = time.Second
	betweenTries  = time.Millisecond
)

// placeState is how far the collector is with making a place.
type placeState uint8

const (
	notAsked placeState = iota
	asked               // it is to make one
	making              // it does, and what it needs for that comes first
	made                // it did what it could, and has settled nothing since
)

// Tighten says that this process may open no more descriptors, and whether somebody is about to use one
// of its own for a task.
func (q *Outcomes) Tighten(taking bool) {
	q.receiving.Lock() // who has found a place takes it first
	defer q.receiving.Unlock()
	q.mu.Lock()
	defer q.mu.Unlock()
	q.scarce.tight, q.scarce.taking = true, taking
	if !taking && len(q.resume) > 0 {
		q.rouse() // the collector has those come again who waited meanwhile
	}
}

// Tight says whether descriptors were missing, and are still few.
func (q *Outcomes) Tight() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.scarce.tight
}

// mustWait has a worker wait where the descriptor that it has sent through a socket can't be taken now:
// pause is called, and resume once it is worth another try. false: receive the message, whose descriptor
// is taken or, where that is hopeless, lost. receiving is held.
func (q *Outcomes) mustWait(take func() bool, pause, resume func()) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	taking := q.scarce.taking && !q.drained          // the place that is free is the task's
	last := q.scarce.place == made && q.regions == 0 // now or never
	if !taking && (!q.scarce.tight || last) {
		if take() {
			q.scarce.until = time.Time{}
			return false
		}
		q.scarce.tight = true
	}
	switch {
	case taking:
	case last && !q.drained && q.mayTryAgain():
		time.AfterFunc(betweenTries, q.tryAgain)
	case q.drained || last:
		q.scarce.until = time.Time{}
		return false
	case q.scarce.place == notAsked && q.regions == 0:
		q.scarce.place = asked
		q.rouse()
	}
	pause()
	q.resume = append(q.resume, resume)
	return true
}

// mayTryAgain says whether a result that found its place taken may wait longer. mu is held.
func (q *Outcomes) mayTryAgain() bool {
	now := time.Now()
	if q.scarce.until.IsZero() {
		q.scarce.until = now.Add(q.scarce.patience)
	}
	return now.Before(q.scarce.until)
}

// tryAgain has the collector make a place once more, and those come again who wait.
func (q *Outcomes) tryAgain() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.scarce.place == made && !q.drained {
		q.scarce.place = asked
		q.rouse()
	}
}

// placed takes note that the collector comes again, having read so many bytes. mu is held.
func (q *Outcomes) placed(consumed int) {
	s := &q.scarce
	switch {
	case s.place == making:
		s.place = made
	case s.place == made && consumed > 0:
		s.place = notAsked
	}
	if s.tight && !s.taking && s.place == notAsked && consumed > 0 && q.receiving.TryLock() {
		defer q.receiving.Unlock() // who receives may have found the place that this look takes
		s.tight = !canOpen(q.wake, 2)
	}
}

// mustWait says whether the next message, which brings a descriptor, has to stay in the socket; then
// its watch is paused. listening and receiving are held.
func (l *WorkerLink) mustWait() bool {
	return l.outcomes.mustWait(l.takeFD,
		func() {
			l.waits.Store(true)
			l.socket.Pause()
		},
		func() {
			l.waits.Store(false)
			l.socket.Resume()
		})
}

// readToTheEnd reads all that an ended worker had sent. false: a part can't be received yet, and
// exited is called again.
func (l *WorkerLink) readToTheEnd() bool {
	for {
		for l.readOne() {
		}
		if !l.waits.Load() {
			return true
		}
		l.outcomes.receiving.Lock()
		wait := l.outcomes.mustWait(l.takeFD, l.process.Pause, l.process.Resume)
		l.outcomes.receiving.Unlock()
		if wait {
			return false
		}
		l.waits.Store(false) // now it need not
	}
}

// takeFD takes the descriptor of the next message, which stays in the socket: so nothing is lost where
// there is no place for it. true as well where the message is not as it should be: receiving it tells.
func (l *WorkerLink) takeFD() bool {
	if l.taken < 0 {
		_, fd, _, err := receive(l.ends.Socket, l.inbox.buf, l.inbox.oob, unix.MSG_PEEK)
		if err != nil {
			return true
		}
		l.taken = max(fd, -1)
	}
	return l.taken >= 0
}

// peekFD says whether there is a message in a socket, or its end, and whether it comes with a descriptor.
// It stays there.
func peekFD(fd int, buf []byte) (is, brings bool) {
	iov := unix.Iovec{Base: &buf[0], Len: 1}
	msg := unix.Msghdr{Iov: &iov, Iovlen: 1} // without room for a descriptor: the flag tells
	for {
		_, _, errno := unix.RawSyscall(unix.SYS_RECVMSG, uintptr(fd),
			uintptr(unsafe.Pointer(&msg)), unix.MSG_PEEK|unix.MSG_DONTWAIT)
		if errno != unix.EINTR {
			return errno != unix.EAGAIN, errno == 0 && msg.Flags&unix.MSG_CTRUNC != 0
		}
	}
}

// canOpen says whether this process may open so many descriptors more, by making them of another.
func canOpen(fd, count int) bool {
	if count == 0 {
		return true
	}
	another, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer closeFD(another)
	return canOpen(fd, count-1)
}

// openLimit is RLIMIT_NOFILE, for people; 0: unknown.
func openLimit() uint64 {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return 0
	}
	return limit.Cur
}
