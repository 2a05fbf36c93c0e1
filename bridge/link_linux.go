// SPDX-License-Identifier: MIT

package bridge

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"gopool/gopool"
)

// Endpoints are the descriptors of one worker. Python makes and owns them; it closes them after
// the worker's exit was reported, when nothing here uses them any more.
type Endpoints struct {
	Socket int // the parent's end of the worker's socket pair
	Peer   int // a duplicate of the worker's end: unread messages are taken back through it
	PIDFD  int
	Lane   int // memory of LaneSize bytes and more; -1: the worker has none
}

// WorkerLink is the pool's way to one worker, and the worker's way to the pool.
//
// The methods of gopool.Link run with the pool's lock held, which guards known and frame. The
// handlers run on the poller's goroutine.
type WorkerLink struct {
	id        gopool.WorkerID
	pid       int
	wires     *PoolWires
	pool      *gopool.Pool
	outcomes  *Outcomes
	functions *Functions
	ends      Endpoints
	inbox     *inbox
	lane      *lane // nil: none

	listening sync.Mutex // held until both watches are set
	socket    *Watch
	process   *Watch
	ready     bool // the worker's Ready came
	gone      bool // its process has ended
	broken    bool // it broke the protocol: nothing that it sent since counts

	frame []byte // the last frame sent, its memory used again
	// known has the functions that a settled task of this worker used: it has read their
	// definition. Until then each frame carries it, since any of them may be taken back.
	known map[uint32]bool
	// usesLane is set before the pool hears of the worker's Hello, and never again.
	usesLane bool
	sent     []gopool.TaskID // by the socket and not settled, oldest first
	allRead  bool            // none of them lies in the socket
	waits    atomic.Bool     // its next message stays in the socket (scarce_linux.go)
	taken    int             // the descriptor of its next message, taken out before; -1: none
}

// inbox is the receiving memory of one poller; its handlers run one at a time.
type inbox struct{ buf, oob []byte }

func newInbox() *inbox { return &inbox{make([]byte, MaxFrame), make([]byte, oobSize)} }

// takeBackInboxes are for TakeBack and readElsewhere, which run on any thread.
var takeBackInboxes = sync.Pool{New: func() any { return newInbox() }}

// framesPerTurn bounds what one worker's readiness may read before others get their turn
// (arbitrary; what is left is reported again).
const framesPerTurn = 64

// Attach adds a started worker to the pool and begins to listen to it. A worker that can't be
// watched, or is gone already (PIDFD is -1), is reported as exited at once.
func (b *Board) Attach(w *PoolWires, pid int, ends Endpoints) gopool.WorkerID {
	l := &WorkerLink{pid: pid, wires: w, pool: w.Pool, outcomes: w.Outcomes, functions: &w.Functions,
		ends: ends, inbox: b.inbox, known: make(map[uint32]bool), taken: -1}
	if ends.Lane >= 0 {
		l.lane, _ = openLane(ends.Lane) // no memory: the socket will do
	}
	w.join(l)
	l.begin(b.Poller)
	w.LookAgain()
	return l.id
}

// begin makes the worker known to the pool and listens to it.
func (l *WorkerLink) begin(p *Poller) {
	// Others may look into the lane already, and the poller's goroutine may call a handler before Add
	// has returned its Watch.
	l.listening.Lock()
	defer l.listening.Unlock()
	l.id = l.pool.AddWorker(l.pid, l)
	if l.ends.PIDFD < 0 {
		l.leave()
		return
	}
	l.hearEarly()
	if err := l.listen(p); err != nil {
		_ = l.pool.Fail(l.id, err.Error())
		l.leave()
	}
}

// hearEarly reads the worker's Hello and Ready where they are there before anybody listens. Most
// workers have booted by then: the first task finds them ready, and the poller need not wake up.
func (l *WorkerLink) hearEarly() {
	if l.readElsewhere() {
		l.readElsewhere()
	}
}

// readElsewhere is readOne on another thread than the poller's, which has its own inbox.
func (l *WorkerLink) readElsewhere() bool {
	pollers := l.inbox
	l.inbox = takeBackInboxes.Get().(*inbox)
	defer func() {
		takeBackInboxes.Put(l.inbox)
		l.inbox = pollers
	}()
	return l.readOne()
}

func (l *WorkerLink) listen(p *Poller) (err error) {
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

// Send implements gopool.Link: by the lane where the message fits into it, else by the socket. What
// is in one of them is begun before anything is put into the other, so that tasks keep their order.
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
	body := frame[HeaderSize:]
	if l.usesLane && rights == nil && len(body) <= MaxLaneBody {
		if len(l.sent) > 0 {
			return gopool.ErrLinkFull
		}
		return l.put(t.ID, body)
	}
	if l.usesLane && l.lane.unclaimed() > 0 {
		return gopool.ErrLinkFull
	}
	if err = send(l.ends.Socket, frame, rights); err == nil {
		l.sent = append(l.sent, t.ID)
		l.allRead = false
	}
	if errors.Is(err, unix.EBADF) && t.Region.Present() {
		return fmt.Errorf("%w: somebody closed its memory region: %w", gopool.ErrUnsendable, err)
	}
	return err
}

// put puts a task into the lane, and wakes the worker if it sleeps.
func (l *WorkerLink) put(id gopool.TaskID, body []byte) error {
	if err := l.lane.put(id, body); err != nil {
		return err
	}
	if l.lane.rouse() {
		// Where the socket is full the worker has enough to wake it; where it is broken the worker is
		// about to end, and what it has not begun comes back.
		_ = send(l.ends.Socket, look, nil)
	}
	return nil
}

var look = AppendLook(nil)

// Settled implements gopool.Link.
func (l *WorkerLink) Settled(t *gopool.Task) {
	l.known[t.Function] = true
	if i := slices.Index(l.sent, t.ID); i >= 0 {
		l.sent = slices.Delete(l.sent, i, i+1)
	} else if l.usesLane {
		l.lane.settled(t.ID)
		l.minded()
	}
}

// minded has a worker ended that broke its lane, once the pool's lock is free.
func (l *WorkerLink) minded() {
	if l.lane.broken.Load() {
		l.wires.Look()
	}
}

// Progress implements gopool.Link.
func (l *WorkerLink) Progress(now time.Time) (p gopool.Progress) {
	if !l.allRead {
		p.Unbegun = len(l.sent)
	}
	if !l.usesLane {
		return p
	}
	p.Silent = true
	p.Unbegun += l.lane.unclaimed()
	l.minded()
	p.Awake = !l.lane.asleep()
	p.Busy, p.Began = l.lane.busy(now)
	return p
}

// Hungry implements gopool.Link.
func (l *WorkerLink) Hungry(yes bool) {
	switch {
	case l.lane == nil:
	case yes:
		l.lane.listen(listenHungry)
	default:
		l.lane.ignore(listenHungry)
	}
}

// Stop implements gopool.Link.
func (l *WorkerLink) Stop() error {
	return send(l.ends.Socket, AppendStop(nil), nil)
}

// TakeBack implements gopool.Link.
func (l *WorkerLink) TakeBack(keep int) []gopool.TaskID {
	if len(l.sent) == 0 {
		if !l.usesLane {
			return nil
		}
		defer l.minded()
		return l.lane.takeBack(keep)
	}
	ids, looks := l.unread()
	if looks {
		_ = send(l.ends.Socket, look, nil) // it may sleep, and nobody else will wake it
	}
	l.allRead = true
	l.sent = slices.DeleteFunc(l.sent, func(id gopool.TaskID) bool { return slices.Contains(ids, id) })
	return ids
}

// unread takes the tasks out of the socket that the worker has not read, and whatever else was sent:
// looks says that there was a Look.
func (l *WorkerLink) unread() (ids []gopool.TaskID, looks bool) {
	box := takeBackInboxes.Get().(*inbox)
	defer takeBackInboxes.Put(box)
	for {
		frame, fd, ok, err := receive(l.ends.Peer, box.buf, box.oob, 0)
		closeFD(fd)
		if !ok || err != nil {
			return ids, looks
		}
		m, err := DecodeToWorker(frame, fd >= 0)
		if err != nil {
			// A process that may open no more descriptors receives the frame without its own.
			m, err = DecodeToWorker(frame, fd < 0)
		}
		if err != nil || m.Kind != KindTask {
			looks = looks || m.Kind == KindLook
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

// HasChildren implements gopool.Link.
func (l *WorkerLink) HasChildren() bool { return hasChildren(l.pid, l.ends.PIDFD) }

// readable reads what the worker sent, unless Python is too far behind in taking outcomes.
func (l *WorkerLink) readable() {
	defer l.wires.LookAgain()
	l.listening.Lock()
	defer l.listening.Unlock()
	for range framesPerTurn {
		if l.outcomes.PauseIfFull(l.socket.Pause, l.socket.Resume) || !l.readOne() {
			break
		}
	}
}

// exited runs once, when the process has ended. What it had sent comes first: a result that was
// on its way is not lost.
func (l *WorkerLink) exited() {
	defer l.wires.LookAgain()
	l.listening.Lock()
	defer l.listening.Unlock()
	if !l.readToTheEnd() {
		return
	}
	for l.drainNext(false) {
	}
	l.process.Remove()
	l.socket.Remove()
	l.leave()
}

// leave tells the pool that the process has ended.
func (l *WorkerLink) leave() {
	l.gone = true
	_ = l.pool.Exited(l.id) // unknown only where Python has reaped and reported it already
}

// drain hands over the outcomes that wait in the lane, unless Python is too far behind.
func (l *WorkerLink) drain() {
	if l.lane == nil || !l.lane.pending() && !l.lane.broken.Load() {
		return
	}
	l.listening.Lock()
	defer l.listening.Unlock()
	if !l.gone && !l.outcomes.Full() {
		l.drainAll()
	}
}

// drainAll hands over all outcomes in the lane, and those in the socket that came before one of them;
// listening is held.
func (l *WorkerLink) drainAll() {
	for l.drainOldest() {
		if l.outcomes.Full() {
			return
		}
		if !l.readElsewhere() {
			break
		}
	}
	if l.waits.Load() {
		return
	}
	// What is still out of order its worker never told of, or told of twice.
	for l.drainNext(false) {
	}
}

// drainOldest hands over outcomes in the lane as long as each is the oldest that its worker owes.
// true: one is left that is not, so a message before it lies in the socket.
func (l *WorkerLink) drainOldest() (left bool) {
	for l.drainNext(true) {
	}
	return l.lane != nil && !l.broken && l.lane.pending()
}

// drainNext hands over the next outcome in the lane. false: there is none, or it is not the oldest.
func (l *WorkerLink) drainNext(inOrder bool) bool {
	if l.lane == nil || l.broken {
		return false
	}
	o, ok, err := l.lane.peek()
	if !ok && err == nil && l.lane.broken.Load() {
		err = errLaneCount
	}
	if !ok && err == nil {
		return false
	}
	var m FromWorker
	if err == nil {
		m, err = DecodeFromWorker(o.frame, false)
	}
	switch {
	case err != nil:
	case m.Kind != KindDone:
		err = &ProtocolError{Kind: m.Kind, Reason: reasonUnknown}
	case inOrder && !l.pool.IsOldest(l.id, gopool.TaskID(m.Done.ID)):
		return false
	default:
		err = l.done(&m.Done, -1, &o)
		l.lane.free(o.size)
	}
	if err != nil {
		l.refuse(err)
	}
	return err == nil
}

// refuse ends a worker that broke the protocol.
func (l *WorkerLink) refuse(err error) {
	l.broken = true
	if l.socket != nil { // else nobody listens yet: see hearEarly
		l.socket.Remove()
	}
	_ = l.pool.Fail(l.id, err.Error())
}

// readOne handles one message; false: none is waiting, or the worker broke the protocol and is
// listened to no more.
func (l *WorkerLink) readOne() bool {
	if l.broken || l.waits.Load() {
		return false
	}
	if l.socket != nil && l.taken < 0 { // without a watch it has no task yet
		is, brings := peekFD(l.ends.Socket, l.inbox.buf)
		if !is {
			return false // what comes right now is not received without this look at it
		}
		if brings {
			l.outcomes.receiving.Lock()
			defer l.outcomes.receiving.Unlock()
			if l.mustWait() {
				return false
			}
		}
	}
	frame, fd, ok, err := l.receive()
	if err == nil && !ok {
		return false
	}
	l.drainOldest() // what went into the lane before this was sent, and before what can't be read
	if err == nil {
		err = l.handle(frame, fd)
	}
	if err != nil {
		l.refuse(err)
		return false
	}
	return true
}

// receive gives the next message with its descriptor, which may have been taken out before.
func (l *WorkerLink) receive() (frame []byte, fd int, ok bool, err error) {
	if l.taken < 0 {
		return receive(l.ends.Socket, l.inbox.buf, l.inbox.oob, 0)
	}
	taken := l.taken
	l.taken = -1
	frame, _, ok, err = receive(l.ends.Socket, l.inbox.buf, nil, 0) // without room: it comes once
	if err != nil || !ok {
		closeFD(taken)
		taken = -1
	}
	return frame, taken, ok, err
}

// handle passes one message on to the pool. The descriptor is closed here unless the pool took
// it with an outcome.
func (l *WorkerLink) handle(frame []byte, fd int) error {
	m, err := DecodeFromWorker(frame, fd != -1)
	if err == nil && m.Kind == KindDone {
		return l.done(&m.Done, fd, nil)
	}
	closeFD(fd)
	switch {
	case err != nil:
		return err
	case m.Kind == KindHello:
		l.usesLane = l.lane != nil && m.Hello.Flags&FlagLane != 0
		return l.pool.Hello(l.id)
	case m.Kind == KindDozing:
		return nil // what it had to tell lay in the lane
	case m.Kind == KindReady && l.ready:
		return &ProtocolError{Kind: KindReady, Reason: "said a second time"}
	case m.Kind == KindReady:
		l.ready = true
		return l.pool.Ready(l.id)
	default:
		return l.pool.InitFailed(l.id, m.Failed.Text)
	}
}

// done settles a task; in says what the lane knew of it, nil: it came by the socket.
func (l *WorkerLink) done(m *Done, fd int, in *laneOutcome) error {
	o := gopool.Outcome{Status: gopool.Status(m.Status), Payload: m.Payload,
		Region: gopool.Region{FD: fd, Size: m.RegionSize}}
	if in != nil {
		o.Took, o.Ended = in.took, clock.time(in.ended)
	}
	if fd == lostFD {
		o = gopool.Outcome{Status: gopool.StatusRefused, Failure: &gopool.Failure{
			Text: fmt.Sprintf("the task is done, but its outcome of %d bytes was lost: this process may open no "+
				"more descriptors (RLIMIT_NOFILE is %d; raise `ulimit -n`, or hold fewer files open)",
				m.RegionSize, openLimit())}}
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
