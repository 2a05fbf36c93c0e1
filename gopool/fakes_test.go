// SPDX-License-Identifier: MIT

package gopool

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// fakeWorker is a scripted child: it takes what is sent and does only what the test says.
type fakeWorker struct {
	t        *testing.T
	pool     *Pool
	id       WorkerID
	unread   []TaskID
	stopped  bool
	signals  []string
	refuse   error // what Send returns
	memory   uint64
	children bool
	awake    bool
	tells    bool // it is not silent
	hungry   bool
	busy     time.Duration // how long it has been at its task
}

func (f *fakeWorker) Send(t *Task) error {
	if f.refuse != nil {
		return f.refuse
	}
	if t.Mode == unsendable {
		return ErrUnsendable
	}
	f.unread = append(f.unread, t.ID)
	return nil
}

func (f *fakeWorker) Settled(*Task) {}
func (f *fakeWorker) Stop() error   { f.stopped = true; return nil }

func (f *fakeWorker) TakeBack(keep int) []TaskID {
	keep = min(keep, len(f.unread))
	ids := f.unread[keep:]
	f.unread = f.unread[:keep:keep]
	return ids
}

func (f *fakeWorker) Progress(time.Time) Progress {
	return Progress{Silent: !f.tells, Awake: f.awake, Unbegun: len(f.unread), Began: f.busy > 0, Busy: f.busy}
}

func (f *fakeWorker) Hungry(yes bool) { f.hungry = yes }

func (f *fakeWorker) Interrupt(tree bool) { f.signal("TERM", tree) }
func (f *fakeWorker) Kill(tree bool)      { f.signal("KILL", tree) }
func (f *fakeWorker) Memory() uint64      { return f.memory }
func (f *fakeWorker) HasChildren() bool   { return f.children }

func (f *fakeWorker) signal(name string, tree bool) {
	if tree {
		name += " tree"
	}
	f.signals = append(f.signals, name)
}

func (f *fakeWorker) boot() *fakeWorker {
	f.t.Helper()
	require.NoError(f.t, f.pool.Hello(f.id))
	require.NoError(f.t, f.pool.Ready(f.id))
	return f
}

// begin reads the oldest unread task.
func (f *fakeWorker) begin() TaskID {
	f.t.Helper()
	require.NotEmpty(f.t, f.unread, "worker %d has nothing to begin", f.id)
	id := f.unread[0]
	f.unread = f.unread[1:]
	return id
}

func (f *fakeWorker) finish(id TaskID) {
	f.t.Helper()
	require.NoError(f.t, f.pool.Settle(f.id, id, &Outcome{Payload: []byte(fmt.Sprint(id))}))
}

func (f *fakeWorker) die(exit ExitStatus) Verdict {
	f.t.Helper()
	require.NoError(f.t, f.pool.Exited(f.id))
	v, err := f.pool.Reaped(f.id, exit)
	require.NoError(f.t, err)
	return v
}

// fakeSink records what Python would see.
type fakeSink struct {
	outcomes []Outcome
	drained  int
	exited   []WorkerID
	ended    int
	alarm    time.Time // zero: none
	summons  int
	events   []Event
	looks    int
}

func (s *fakeSink) Deliver(o *Outcome)       { s.outcomes = append(s.outcomes, *o) }
func (s *fakeSink) Drained()                 { s.drained++ }
func (s *fakeSink) WorkerExited(id WorkerID) { s.exited = append(s.exited, id) }
func (s *fakeSink) Ended()                   { s.ended++ }
func (s *fakeSink) Alarm(at time.Time)       { s.alarm = at }
func (s *fakeSink) Summon()                  { s.summons++ }
func (s *fakeSink) Look()                    { s.looks++ }
func (s *fakeSink) Event(e *Event)           { s.events = append(s.events, *e) }

func (s *fakeSink) indices() []uint64 {
	var indices []uint64
	for _, o := range s.outcomes {
		indices = append(indices, o.Index)
	}
	return indices
}

type bench struct {
	t    *testing.T
	pool *Pool
	sink *fakeSink
	next uint64
}

func newBench(t *testing.T, cfg Config) *bench {
	sink := &fakeSink{}
	return &bench{t: t, pool: NewPool(cfg, sink), sink: sink}
}

func (b *bench) worker() *fakeWorker {
	f := &fakeWorker{t: b.t, pool: b.pool}
	f.id = b.pool.AddWorker(1000+int(b.next), f)
	return f
}

// submit adds n tasks with indices counted from 0 over the whole test.
func (b *bench) submit(n int) {
	b.t.Helper()
	for range n {
		_, err := b.pool.Submit(&Task{Job: 7, Index: b.next, Payload: []byte("x"), Region: NoRegion})
		require.NoError(b.t, err)
		b.next++
	}
}

// unsendable is the Mode of a task that the fake refuses to send.
const unsendable = 99

var errGone = errors.New("gone")
