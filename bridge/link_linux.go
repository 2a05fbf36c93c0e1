// SPDX-License-Identifier: MIT

package bridge

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"gopool/gopool"
)

// Endpoints are the descriptors of one worker. Python makes and owns them; it closes them after
// the worker's exit was reported, when nothing here uses them any more.
type Endpoints struct {
	Socket int // the parent's end of the worker's socket pair
	Peer   int // a duplicate of the worker's end: unread messages are taken back through it
	PIDFD  int
}

// WorkerLink is the pool's way to one worker, and the worker's way to the pool.
//
// The methods of gopool.Link run with the pool's lock held, which guards known and frame. The
// handlers run on the poller's goroutine.
type WorkerLink struct {
	id        gopool.WorkerID
	pid       int
	pool      *gopool.Pool
	outcomes  *Outcomes
	functions *Functions
	ends      Endpoints
	inbox     *inbox

	listening sync.Mutex // held until both watches are set
	socket    *Watch
	process   *Watch
	ready     bool // the worker's Ready came
	broken    bool // it broke the protocol: nothing that it sent since counts

	frame []byte // the last frame sent, its memory used again
	// known has the functions that a settled task of this worker used: it has read their
	// definition. Until then each frame carries it, since any of them may be taken back.
	known map[uint32]bool
}

// inbox is the receiving memory of one poller; its handlers run one at a time.
type inbox struct{ buf, oob []byte }

func newInbox() *inbox { return &inbox{make([]byte, MaxFrame), make([]byte, oobSize)} }

// takeBackInboxes are for TakeBack and hearEarly, which run on any thread.
var takeBackInboxes = sync.Pool{New: func() any { return newInbox() }}

// framesPerTurn bounds what one worker's readiness may read before others get their turn
// (arbitrary; what is left is reported again).
const framesPerTurn = 64

// Attach adds a started worker to the pool and begins to listen to it. A worker that can't be
// watched, or is gone already (PIDFD is -1), is reported as exited at once.
func (b *Board) Attach(w *PoolWires, pid int, ends Endpoints) gopool.WorkerID {
	l := &WorkerLink{pid: pid, pool: w.Pool, outcomes: w.Outcomes, functions: &w.Functions, ends: ends,
		inbox: b.inbox, known: make(map[uint32]bool)}
	l.id = w.Pool.AddWorker(pid, l)
	if ends.PIDFD < 0 {
		_ = w.Pool.Exited(l.id)
		return l.id
	}
	l.hearEarly()
	if err := l.listen(b.Poller); err != nil {
		_ = w.Pool.Fail(l.id, err.Error())
		_ = w.Pool.Exited(l.id)
	}
	return l.id
}

// hearEarly reads the worker's Hello and Ready where they are there before anybody listens. Most
// workers have booted by then: the first task finds them ready, and the poller need not wake up.
func (l *WorkerLink) hearEarly() {
	pollers := l.inbox
	l.inbox = takeBackInboxes.Get().(*inbox)
	if l.readOne() {
		l.readOne()
	}
	takeBackInboxes.Put(l.inbox)
	l.inbox = pollers
}

func (l *WorkerLink) listen(p *Poller) (err error) {
	// The poller's goroutine may call a handler before Add has returned its Watch.
	l.listening.Lock()
	defer l.listening.Unlock()
	if l.socket, err = p.Add(l.ends.Socket, l.readable); err != nil {
		return fmt.Errorf("watching a worker's socket: %w", err)
	}
	if l.broken {
		l.socket.Remove()
	}
	if l.process, err = p.Add(l.ends.PIDFD, l.exited); err != nil {
		l.socket.Remove()
		return fmt.Errorf("watching a worker's process: %w", err)
	}
	return nil
}

// Send implements gopool.Link.
func (l *WorkerLink) Send(t *gopool.Task) error {
	m := Task{ID: uint64(t.ID), Mode: Mode(t.Mode), Function: t.Function, Payload: t.Payload}
	if t.Function != 0 && !l.known[t.Function] {
		m.Definition = l.functions.Definition(t.Function)
	}
	var rights []byte
	if t.Region.Present() {
		m.RegionSize = t.Region.Size
		rights = unix.UnixRights(t.Region.FD)
	}
	frame, err := AppendTask(l.frame[:0], &m)
	if err != nil {
		return fmt.Errorf("%w: %w", gopool.ErrUnsendable, err)
	}
	l.frame = frame
	err = send(l.ends.Socket, frame, rights)
	if errors.Is(err, unix.EBADF) && t.Region.Present() {
		return fmt.Errorf("%w: somebody closed its memory region: %w", gopool.ErrUnsendable, err)
	}
	return err
}

// Settled implements gopool.Link.
func (l *WorkerLink) Settled(t *gopool.Task) { l.known[t.Function] = true }

// Stop implements gopool.Link.
func (l *WorkerLink) Stop() error {
	return send(l.ends.Socket, AppendStop(nil), nil)
}

// TakeBack implements gopool.Link.
func (l *WorkerLink) TakeBack() []gopool.TaskID {
	var ids []gopool.TaskID
	box := takeBackInboxes.Get().(*inbox)
	defer takeBackInboxes.Put(box)
	for {
		frame, fd, ok, err := receive(l.ends.Peer, box.buf, box.oob)
		closeFD(fd)
		if !ok || err != nil {
			return ids
		}
		m, err := DecodeToWorker(frame, fd >= 0)
		if err != nil {
			// A process that may open no more descriptors receives the frame without its own.
			m, err = DecodeToWorker(frame, fd < 0)
		}
		if err != nil || m.Kind != KindTask {
			continue // a Stop, for which it is too late
		}
		ids = append(ids, gopool.TaskID(m.Task.ID))
	}
}

// Interrupt implements gopool.Link.
func (l *WorkerLink) Interrupt(tree bool) { l.signal(unix.SIGTERM, tree) }

// Kill implements gopool.Link.
func (l *WorkerLink) Kill(tree bool) { l.signal(unix.SIGKILL, tree) }

// signal goes through the pidfd, so that it never reaches a stranger with the same number. It
// fails only where the process has ended, which is what the caller wants.
func (l *WorkerLink) signal(sig unix.Signal, tree bool) {
	if tree {
		_ = SignalTree(l.pid, l.ends.PIDFD, sig)
		return
	}
	_ = unix.PidfdSendSignal(l.ends.PIDFD, sig, nil, 0)
}

// Memory implements gopool.Link. The process is not reaped yet, so its number is its own.
func (l *WorkerLink) Memory() uint64 { return residentBytes(l.pid) }

// readable reads what the worker sent, unless Python is too far behind in taking outcomes.
func (l *WorkerLink) readable() {
	l.listening.Lock()
	defer l.listening.Unlock()
	for range framesPerTurn {
		if l.outcomes.PauseIfFull(l.socket.Pause, l.socket.Resume) || !l.readOne() {
			return
		}
	}
}

// exited runs once, when the process has ended. What it had sent comes first: a result that was
// on its way is not lost.
func (l *WorkerLink) exited() {
	l.listening.Lock()
	defer l.listening.Unlock()
	for l.readOne() {
	}
	l.process.Remove()
	l.socket.Remove()
	_ = l.pool.Exited(l.id) // unknown only where Python has reaped and reported it already
}

// readOne handles one message; false: none is waiting, or the worker broke the protocol and is
// listened to no more.
func (l *WorkerLink) readOne() bool {
	if l.broken {
		return false
	}
	frame, fd, ok, err := receive(l.ends.Socket, l.inbox.buf, l.inbox.oob)
	if err == nil && !ok {
		return false
	}
	if err == nil {
		err = l.handle(frame, fd)
	}
	if err != nil {
		l.broken = true
		if l.socket != nil { // else nobody listens yet: see hearEarly
			l.socket.Remove()
		}
		_ = l.pool.Fail(l.id, err.Error())
		return false
	}
	return true
}

// handle passes one message on to the pool. The descriptor is closed here unless the pool took
// it with an outcome.
func (l *WorkerLink) handle(frame []byte, fd int) error {
	m, err := DecodeFromWorker(frame, fd != -1)
	if err == nil && m.Kind == KindDone {
		return l.done(&m.Done, fd)
	}
	closeFD(fd)
	switch {
	case err != nil:
		return err
	case m.Kind == KindHello:
		return l.pool.Hello(l.id)
	case m.Kind == KindReady && l.ready:
		return &ProtocolError{Kind: KindReady, Reason: "said a second time"}
	case m.Kind == KindReady:
		l.ready = true
		return l.pool.Ready(l.id)
	default:
		return l.pool.InitFailed(l.id, m.Failed.Text)
	}
}

func (l *WorkerLink) done(m *Done, fd int) error {
	o := gopool.Outcome{Status: gopool.Status(m.Status), Payload: m.Payload,
		Region: gopool.Region{FD: fd, Size: m.RegionSize}}
	if fd == lostFD {
		o = gopool.Outcome{Status: gopool.StatusRefused, Failure: &gopool.Failure{
			Text: "the outcome can't be received: this process may open no more descriptors"}}
	}
	err := l.pool.Settle(l.id, gopool.TaskID(m.ID), &o)
	if err != nil {
		closeFD(fd)
	}
	if errors.Is(err, gopool.ErrDropped) {
		return nil
	}
	return err
}
