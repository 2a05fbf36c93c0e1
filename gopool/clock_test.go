// SPDX-License-Identifier: MIT

package gopool

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// fakeClock is a pool's time; advance calls Tick as the poller would.
type fakeClock struct {
	*bench
	now time.Time
}

// newClockBench makes a pool whose time stands still until it is advanced.
func newClockBench(t *testing.T, l Limits) *fakeClock {
	c := &fakeClock{now: time.Unix(1_000_000, 0)}
	c.bench = newBench(t, Config{Now: func() time.Time { return c.now }})
	if l.Grace == 0 {
		l.Grace = 5 * time.Second
	}
	c.pool.SetLimits(l)
	return c
}

func (c *fakeClock) advance(d time.Duration) {
	end := c.now.Add(d)
	for at := c.sink.alarm; !at.IsZero() && !at.After(end); at = c.sink.alarm {
		c.sink.alarm = time.Time{}
		c.now = at
		c.pool.Tick()
	}
	c.now = end
}

// ask submits one task with options; its index is returned.
func (c *fakeClock) ask(o Options) uint64 {
	c.t.Helper()
	options, known := c.pool.Options(c.pool.AddOptions(o))
	require.True(c.t, known)
	c.next++
	_, err := c.pool.Submit(&Task{Job: c.next, Index: c.next, Payload: []byte("x"),
		Region: NoRegion, Options: options})
	require.NoError(c.t, err)
	return c.next
}

func (c *fakeClock) kinds() []EventKind {
	var kinds []EventKind
	for _, e := range c.sink.events {
		kinds = append(kinds, e.Kind)
	}
	return kinds
}

var killed = ExitStatus{Code: -9, Known: true}

// A task that takes too long fails at its time; its worker gets SIGTERM with its tree, SIGKILL after
// the grace, and is replaced. What it says in between is late, not wrong.
func TestTimeout(t *testing.T) {
	c := newClockBench(t, Limits{Size: 1})
	w := c.worker().boot()
	index := c.ask(Options{Timeout: time.Second})
	id := w.begin()
	c.advance(999 * time.Millisecond)
	require.Empty(t, c.sink.outcomes)
	c.advance(time.Millisecond)
	require.Len(t, c.sink.outcomes, 1)
	o := c.sink.outcomes[0]
	assert.Equal(t, StatusTimeout, o.Status)
	assert.Equal(t, index, o.Index)
	assert.Equal(t, time.Second, o.Failure.RanFor)
	assert.Equal(t, []string{"TERM tree"}, w.signals)
	assert.ErrorIs(t, c.pool.Settle(w.id, id, &Outcome{}), ErrDropped)
	c.advance(5 * time.Second)
	assert.Equal(t, []string{"TERM tree", "KILL tree"}, w.signals)
	assert.Equal(t, Verdict{Replace: true}, w.die(killed))
	assert.Equal(t, []EventKind{EventTimeout}, c.kinds())
	assert.Len(t, c.sink.outcomes, 1)
}

// A timeout counts from a task's beginning, not from its submission, and ends with the task.
func TestTimeoutCountsFromTheBeginning(t *testing.T) {
	c := newClockBench(t, Limits{Size: 1})
	first := Options{Timeout: time.Second}
	c.ask(first)
	c.ask(first)
	c.advance(time.Minute)
	w := c.worker().boot()
	one := w.begin()
	require.Empty(t, w.unread, "nothing is sent behind a task with a timeout")
	c.advance(900 * time.Millisecond)
	w.finish(one)
	two := w.begin()
	c.advance(900 * time.Millisecond)
	w.finish(two)
	c.advance(time.Hour)
	assert.Empty(t, w.signals)
	assert.Equal(t, 2, c.pool.Stats().Values)
}

// A lost task is run again as often as was asked for, each time after a longer pause.
func TestRetryLost(t *testing.T) {
	c := newClockBench(t, Limits{Size: 1})
	c.ask(Options{Retries: 2, RetryOn: RetryLost, Backoff: time.Second})
	for attempt, pause := range []time.Duration{time.Second, 2 * time.Second} {
		w := c.worker().boot()
		w.begin()
		w.die(killed)
		next := c.worker().boot()
		c.advance(pause - time.Millisecond)
		require.Empty(t, next.unread, "attempt %d is too early", attempt)
		c.advance(time.Millisecond)
		require.Len(t, next.unread, 1)
		next.die(killed) // it had not begun: nobody is charged
		require.Empty(t, c.sink.outcomes)
	}
	w := c.worker().boot()
	w.begin()
	w.die(killed)
	require.Len(t, c.sink.outcomes, 1, "a poison task gives up")
	assert.Equal(t, StatusLost, c.sink.outcomes[0].Status)
	assert.Equal(t, 2, c.pool.Stats().Retries)
}

// Retries are for the outcomes that were named.
func TestRetryOn(t *testing.T) {
	tests := []struct {
		on    RetryOn
		how   Status
		again bool
	}{
		{RetryLost, StatusError, false},
		{RetryError, StatusError, true},
		{RetryError, StatusEncoding, true},
		{RetryError, StatusValue, false},
		{RetryTimeout, StatusError, false},
	}
	for _, tt := range tests {
		c := newClockBench(t, Limits{Size: 1})
		w := c.worker().boot()
		c.ask(Options{Retries: 1, RetryOn: tt.on})
		err := c.pool.Settle(w.id, w.begin(), &Outcome{Status: tt.how})
		if tt.again {
			assert.ErrorIs(t, err, ErrDropped)
			w.finish(w.begin())
		} else {
			assert.NoError(t, err)
		}
		assert.Len(t, c.sink.outcomes, 1)
	}
}

// A task that took too long may run again, on another worker.
func TestRetryTimeout(t *testing.T) {
	c := newClockBench(t, Limits{Size: 2})
	slow, other := c.worker().boot(), c.worker().boot()
	c.ask(Options{Timeout: time.Second, Retries: 1, RetryOn: RetryTimeout})
	slow.begin()
	c.advance(time.Second)
	require.Empty(t, c.sink.outcomes)
	other.finish(other.begin())
	assert.Equal(t, []EventKind{EventTimeout, EventRetry}, c.kinds())
	assert.Equal(t, StatusValue, c.sink.outcomes[0].Status)
}

// Cancel drops what is queued or only sent, leaves a running task alone or cuts it short, and
// touches no other job.
func TestCancel(t *testing.T) {
	c := newClockBench(t, Limits{Size: 1})
	w := c.worker().boot()
	running := c.ask(Options{})
	queued := c.ask(Options{})
	last := c.ask(Options{})
	w.begin()
	assert.Equal(t, PlaceRunning, c.pool.Place(running))
	assert.Equal(t, PlaceElsewhere, c.pool.Place(queued))
	assert.Equal(t, 1, c.pool.Cancel(running, 1, false))
	assert.Zero(t, c.pool.Cancel(queued, 1, false))
	assert.Empty(t, w.signals)
	assert.Zero(t, c.pool.Cancel(running, 1, true))
	assert.Equal(t, []string{"TERM tree"}, w.signals)
	w.die(killed)
	next := c.worker().boot()
	next.finish(next.begin())
	assert.Equal(t, []uint64{running, queued, last}, c.sink.indices())
	assert.Equal(t, StatusCancelled, c.sink.outcomes[1].Status)
	assert.Equal(t, 2, c.pool.Stats().Cancelled)
	assert.Empty(t, c.pool.cancelled)
}

// A task that was sent but not begun is cancelled like a queued one; its worker goes on.
func TestCancelSent(t *testing.T) {
	c := newClockBench(t, Limits{Size: 1})
	w := c.worker().boot()
	sent := c.ask(Options{})
	require.Len(t, w.unread, 1)
	assert.Zero(t, c.pool.Cancel(sent, 1, false))
	assert.Empty(t, w.unread)
	assert.Equal(t, []uint64{sent}, c.sink.indices())
	c.ask(Options{})
	w.finish(w.begin())
}

// Memory is looked at while a task runs: beyond the soft limit the worker goes after its task,
// beyond the hard one at once, and its task is lost.
func TestMemoryLimits(t *testing.T) {
	c := newClockBench(t, Limits{Size: 1, MemoryHard: 200, MemorySoft: 100})
	w := c.worker().boot()
	w.memory = 1000
	c.advance(time.Hour)
	assert.Empty(t, w.signals, "an idle worker is not looked at")
	w.memory = 150
	c.ask(Options{})
	id := w.begin()
	c.advance(memoryPeriod)
	assert.False(t, w.stopped)
	w.finish(id)
	assert.True(t, w.stopped)
	w.die(ExitStatus{Known: true})

	greedy := c.worker().boot()
	c.ask(Options{})
	greedy.begin()
	greedy.memory = 201
	c.advance(memoryPeriod)
	assert.Equal(t, []string{"KILL tree"}, greedy.signals)
	greedy.die(killed)
	assert.Equal(t, StatusLost, c.sink.outcomes[1].Status)
	assert.Contains(t, c.sink.outcomes[1].Failure.Text, "201 bytes")
	assert.Equal(t, []EventKind{EventRetire, EventLimit}, c.kinds())
}

// A worker that has reached its age goes between two tasks.
func TestMaxAge(t *testing.T) {
	c := newClockBench(t, Limits{Size: 2, MaxAge: time.Minute})
	idle, busy := c.worker().boot(), c.worker().boot()
	c.ask(Options{})
	worker := map[bool]*fakeWorker{true: idle, false: busy}[len(idle.unread) > 0]
	other := map[bool]*fakeWorker{true: busy, false: idle}[worker == idle]
	id := worker.begin()
	c.advance(time.Minute)
	assert.True(t, other.stopped)
	assert.False(t, worker.stopped)
	worker.finish(id)
	assert.True(t, worker.stopped)
	assert.Equal(t, Verdict{Replace: true}, worker.die(ExitStatus{Known: true}))
}

// Idle workers go after their time and come back, one after the other, when there is work.
func TestIdleTimeout(t *testing.T) {
	c := newClockBench(t, Limits{Size: 2, IdleTimeout: time.Minute})
	one, two := c.worker().boot(), c.worker().boot()
	c.advance(time.Minute)
	assert.True(t, one.stopped)
	assert.True(t, two.stopped)
	assert.Equal(t, Verdict{}, one.die(ExitStatus{Known: true}))
	assert.Equal(t, Verdict{}, two.die(ExitStatus{Known: true}))
	c.advance(c.pool.leaveTime())
	assert.True(t, c.sink.alarm.IsZero(), "an empty pool never wakes up")
	c.ask(Options{})
	assert.Equal(t, 1, c.sink.summons)
	c.ask(Options{})
	assert.Equal(t, 1, c.sink.summons, "one at a time")
	c.worker()
	assert.Equal(t, 2, c.sink.summons)
	c.ask(Options{})
	c.worker()
	assert.Equal(t, 2, c.sink.summons, "the pool is full")
}

// Resize lets the idle ones go first; those that are missing are Python's to start.
func TestResize(t *testing.T) {
	c := newClockBench(t, Limits{Size: 3})
	busy, idle, young := c.worker().boot(), c.worker(), c.worker()
	c.ask(Options{})
	idle.boot()
	id := busy.begin()
	c.pool.Resize(1)
	assert.True(t, idle.stopped)
	assert.True(t, young.stopped)
	assert.False(t, busy.stopped)
	assert.Equal(t, Verdict{}, idle.die(ExitStatus{Known: true}))
	assert.Equal(t, Verdict{}, young.die(ExitStatus{Known: true}))
	busy.finish(id)
	assert.False(t, busy.stopped)
	c.pool.Resize(2)
	assert.Equal(t, Verdict{Replace: true}, busy.die(killed))
}

// Starts that a signal ends break a pool later than starts that fail by themselves.
func TestKilledStarts(t *testing.T) {
	c := newClockBench(t, Limits{Size: 1})
	c.ask(Options{})
	for range maxKilledStarts - 1 {
		c.worker().die(killed)
		require.Empty(t, c.sink.outcomes)
	}
	c.worker().die(killed)
	require.Len(t, c.sink.outcomes, 1)
	assert.Equal(t, StatusBroken, c.sink.outcomes[0].Status)
}

// A closed pool ends when its last retry has ended, and a terminated one at once.
func TestEndWithDelayedTasks(t *testing.T) {
	for _, terminate := range []bool{false, true} {
		c := newClockBench(t, Limits{Size: 1})
		w := c.worker().boot()
		c.ask(Options{Retries: 1, RetryOn: RetryError, Backoff: time.Second})
		assert.ErrorIs(t, c.pool.Settle(w.id, w.begin(), &Outcome{Status: StatusError}), ErrDropped)
		assert.Equal(t, 1, c.pool.Queued())
		c.pool.Close()
		if terminate {
			c.pool.Terminate()
			assert.Equal(t, 1, c.sink.drained)
			continue
		}
		require.Zero(t, c.sink.drained)
		c.advance(time.Second)
		w.finish(w.begin())
		assert.Equal(t, 1, c.sink.drained)
		assert.True(t, w.stopped)
	}
}

// A first task that its worker leaves unread goes to an idle one; a worker that has read its task
// is left alone, and asked only once.
func TestRescueOfAnUnreadTask(t *testing.T) {
	c := newClockBench(t, Limits{Size: 2})
	deaf, well := c.worker().boot(), c.worker().boot()
	c.ask(Options{})
	require.Len(t, deaf.unread, 1, "the one that waits longest")
	c.advance(unreadAfter - time.Millisecond)
	require.Empty(t, well.unread)
	c.advance(time.Millisecond)
	require.Empty(t, deaf.unread)
	long := well.begin()
	c.advance(time.Hour)
	assert.True(t, c.sink.alarm.IsZero(), "nothing is asked for again and again")
	well.finish(long)
	assert.Equal(t, 1, c.pool.Stats().Values)

	// The same where the idle worker comes later.
	c.ask(Options{})
	c.ask(Options{})
	require.Len(t, deaf.unread, 1)
	well.finish(well.begin())
	c.advance(unreadAfter)
	require.Len(t, well.unread, 1)
	well.finish(well.begin())
	assert.Equal(t, 3, c.pool.Stats().Values)
}

// The look at unread tasks comes in time, however far off the next alarm is that was asked for.
func TestRescueBesideALaterAlarm(t *testing.T) {
	for name, l := range map[string]Limits{
		"age": {Size: 2, MaxAge: time.Hour}, "idle": {Size: 2, IdleTimeout: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			c := newClockBench(t, l)
			deaf, well := c.worker().boot(), c.worker().boot()
			c.submit(1)
			require.Len(t, deaf.unread, 1)
			c.advance(unreadAfter)
			assert.Len(t, well.unread, 1)
			assert.Empty(t, deaf.unread)
		})
	}
	t.Run("the idle one comes later", func(t *testing.T) {
		c := newClockBench(t, Limits{Size: 2, MaxAge: time.Hour})
		deaf, well := c.worker().boot(), c.worker().boot()
		c.submit(2)
		well.finish(well.begin())
		c.advance(unreadAfter)
		assert.Len(t, well.unread, 1)
		assert.Empty(t, deaf.unread)
	})
}

// A worker's age counts from when it was ready: one whose start takes longer than it may live must
// do some work all the same.
func TestMaxAgeOfASlowStart(t *testing.T) {
	c := newClockBench(t, Limits{Size: 1, MaxAge: time.Second})
	w := c.worker()
	c.ask(Options{})
	c.advance(time.Minute)
	require.False(t, w.stopped)
	w.boot()
	w.finish(w.begin())
	require.False(t, w.stopped)
	c.advance(time.Second)
	assert.True(t, w.stopped)
}

// A worker that is not ready in time is killed with its tree and counts as a failed start, however
// far it came; three of them break the pool.
func TestStartTimeout(t *testing.T) {
	for name, hello := range map[string]bool{"in the initializer": true, "before": false} {
		t.Run(name, func(t *testing.T) {
			c := newClockBench(t, Limits{Size: 1, StartTimeout: time.Second})
			c.ask(Options{})
			for _, pause := range []time.Duration{firstBackoff, 2 * firstBackoff, 0} {
				w := c.worker()
				if hello {
					require.NoError(t, c.pool.Hello(w.id))
				}
				c.advance(999 * time.Millisecond)
				require.Empty(t, w.signals)
				c.advance(time.Millisecond)
				require.Equal(t, []string{"KILL tree"}, w.signals)
				c.advance(time.Hour)
				require.Len(t, w.signals, 1, "once is enough")
				assert.Equal(t, Verdict{Replace: pause > 0, After: pause}, w.die(killed))
			}
			require.Len(t, c.sink.outcomes, 1)
			o := c.sink.outcomes[0]
			assert.Equal(t, StatusBroken, o.Status)
			assert.Equal(t, hello, o.Failure.Started)
			assert.Contains(t, o.Failure.Text, "worker_start_timeout")
			assert.Equal(t, []EventKind{EventLimit, EventLimit, EventLimit, EventBroken}, c.kinds())
		})
	}
}

// A worker that is ready in time has no limit after that; one of a closed pool, whose Stop it does
// not read, still has.
func TestStartTimeoutOfAClosedPool(t *testing.T) {
	c := newClockBench(t, Limits{Size: 2, StartTimeout: time.Second})
	quick, slow := c.worker().boot(), c.worker()
	c.pool.Close()
	require.True(t, slow.stopped)
	c.advance(time.Hour)
	assert.Empty(t, quick.signals)
	assert.Equal(t, []string{"KILL tree"}, slow.signals)
	quick.die(ExitStatus{Known: true})
	assert.Equal(t, Verdict{}, slow.die(killed))
	assert.Equal(t, 1, c.sink.ended)
}
