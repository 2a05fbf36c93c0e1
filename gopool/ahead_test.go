// SPDX-License-Identifier: MIT

package gopool

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Tasks are sent ahead, up to the limit, and shared out evenly at the end of the queue.
func TestSendAhead(t *testing.T) {
	b := newBench(t, Config{SendAhead: AheadAlways})
	w := b.worker().boot()
	b.submit(3 * maxAhead)
	require.Len(t, w.unread, 1, "a submission goes to idle workers only")
	w.finish(w.begin())
	assert.Len(t, w.unread, 1+maxAhead)
	assert.Equal(t, maxAhead, b.pool.ahead)
}

// Nothing is sent ahead for a function before it was measured, nor when it is slow.
func TestPace(t *testing.T) {
	var p pace
	for range minSamples - 1 {
		p.observe(10 * time.Microsecond)
	}
	require.Zero(t, p.within(aheadTime))
	p.observe(10 * time.Microsecond)
	require.Equal(t, 50, p.within(aheadTime), "as many as fit into the time")
	require.Equal(t, 5, p.within(wakeTime))
	require.Equal(t, maxAhead, p.within(time.Second), "but no more than allowed")
	p.observe(20 * time.Millisecond)
	require.Zero(t, p.within(aheadTime), "one slow task makes it slow")
	p.observe(10 * time.Microsecond)
	require.Zero(t, p.within(aheadTime), "one quick task does not make it quick")
}

// The table of functions stays bounded; what is beyond shares an entry.
func TestPacesAreBounded(t *testing.T) {
	ps := paces{}
	for f := range uint32(2 * maxPaces) {
		ps.observe(f+1, time.Microsecond)
	}
	assert.LessOrEqual(t, len(ps), maxPaces+1)
	assert.Equal(t, maxPaces, ps[0].samples)
}

// A worker that runs dry takes the younger half of what another has not begun, oldest first.
func TestSteal(t *testing.T) {
	b := newBench(t, Config{SendAhead: AheadAlways})
	busy := b.worker().boot()
	b.submit(6)
	busy.finish(busy.begin())
	running := busy.begin()
	require.Len(t, busy.unread, 4)
	idle := b.worker().boot()
	assert.Equal(t, []TaskID{3, 4}, busy.unread)
	require.Equal(t, []TaskID{5, 6}, idle.unread)
	idle.finish(idle.begin())
	idle.finish(idle.begin())
	assert.Equal(t, []TaskID{3}, busy.unread)
	assert.Equal(t, []TaskID{4}, idle.unread)
	busy.finish(running)
}

// What waits no longer than another worker takes to wake up stays where it is, unless the task
// before it has become slow.
func TestStealOnlyWhatIsWorthIt(t *testing.T) {
	c := newAheadBench(t)
	busy := c.worker().boot()
	c.occupy(busy, 20*time.Microsecond)
	c.submit(2)
	require.Len(t, busy.unread, 2, "placed behind the one that runs")
	idle := c.worker().boot()
	require.Empty(t, idle.unread, "two tasks of 20 microseconds are done before it is awake")
	busy.busy = 2 * time.Millisecond
	c.advance(stalledAfter)
	assert.Empty(t, busy.unread)
	assert.Len(t, idle.unread, 1)
	assert.Equal(t, 1, c.pool.queue.len(), "the other waits for whoever is free first")
}

// Where the most loaded worker has nothing left to take, the next one is asked.
func TestStealFromTheNext(t *testing.T) {
	b := newBench(t, Config{SendAhead: AheadAlways})
	first, second := b.worker().boot(), b.worker().boot()
	b.submit(2 + 1 + maxAhead + 5)
	first.finish(first.begin())
	second.finish(second.begin())
	for len(first.unread) > 0 {
		first.begin() // read and done, the outcomes still on their way
	}
	require.NotEmpty(t, second.unread)
	second.begin()
	require.NotEmpty(t, second.unread)
	idle := b.worker().boot()
	assert.NotEmpty(t, idle.unread, "with an idle worker and an unbegun task")
}

// A task behind one that has become slow goes to whoever has room next, before younger ones.
func TestRelieve(t *testing.T) {
	b := newBench(t, Config{SendAhead: AheadAlways})
	slow, quick := b.worker().boot(), b.worker().boot()
	b.submit(2 + 4*maxAhead)
	slow.finish(slow.begin())
	slow.begin()
	slow.busy = time.Second
	behind := slow.unread[0]
	quick.finish(quick.begin())
	assert.Equal(t, behind, quick.unread[0])
	assert.Empty(t, slow.unread)
}

// newAheadBench makes a pool on a fake clock that sends ahead as measured.
func newAheadBench(t *testing.T) *fakeClock { return newClockBench(t, Limits{}) }

// measure has a worker do as many tasks of a length as it takes to trust it.
func (c *fakeClock) measure(w *fakeWorker, took time.Duration) {
	c.t.Helper()
	for range minSamples {
		c.submit(1)
		id := w.begin()
		c.now = c.now.Add(took)
		w.finish(id)
	}
}

// occupy has a worker, awake, begin a task of a function that is measured first.
func (c *fakeClock) occupy(w *fakeWorker, took time.Duration) TaskID {
	c.t.Helper()
	c.measure(w, took)
	c.submit(1)
	id := w.begin()
	w.awake, w.busy = true, time.Microsecond
	return id
}

// While all workers are busy, a quick task goes behind another at once: no worker has to ask for it.
func TestPlaceBehindTheLeastLoaded(t *testing.T) {
	c := newAheadBench(t)
	one, two := c.worker().boot(), c.worker().boot()
	c.submit(1)
	one.begin()
	c.measure(two, 10*time.Microsecond)
	c.submit(1)
	two.begin()
	one.awake, two.awake = true, true
	one.busy, two.busy = time.Microsecond, time.Microsecond
	c.submit(10)
	assert.Len(t, one.unread, 5)
	assert.Len(t, two.unread, 5)
	assert.Zero(t, c.pool.queue.len())
}

// A worker that sleeps, or runs a slow task, gets nothing ahead; nor does an unmeasured function.
func TestPlaceNowhere(t *testing.T) {
	for _, name := range []string{"asleep", "slow", "not measured"} {
		t.Run(name, func(t *testing.T) {
			c := newAheadBench(t)
			w := c.worker().boot()
			if name != "not measured" {
				c.measure(w, 10*time.Microsecond)
			}
			c.submit(1)
			w.begin()
			w.awake, w.busy = name != "asleep", time.Microsecond
			if name == "slow" {
				w.busy = 2 * time.Millisecond
			}
			c.submit(1)
			assert.Empty(t, w.unread)
			assert.Equal(t, 1, c.pool.queue.len())
			assert.True(t, w.hungry, "it tells when it goes to sleep")
		})
	}
}

// A quick task goes behind a worker that is awake rather than to one that must be woken; a tick
// takes it back from there if the task before it turns out slow.
func TestTickTakesBackFromASlowTask(t *testing.T) {
	c := newAheadBench(t)
	awake := c.worker().boot()
	c.measure(awake, 10*time.Microsecond)
	asleep := c.worker().boot()
	c.submit(1)
	require.Len(t, awake.unread, 1)
	awake.begin()
	awake.awake, awake.busy = true, time.Microsecond
	c.submit(1)
	require.Len(t, awake.unread, 1)
	require.Empty(t, asleep.unread)
	awake.busy = time.Hour
	c.advance(2 * stalledAfter)
	assert.Empty(t, awake.unread)
	assert.Len(t, asleep.unread, 1)
}

// The same where nobody was idle when the task was sent, and nobody tells who has become idle since:
// the collector may be in a callback.
func TestTickTakesBackWithoutNews(t *testing.T) {
	c := newAheadBench(t)
	slow, starting := c.worker().boot(), c.worker()
	c.occupy(slow, 10*time.Microsecond)
	c.submit(3)
	require.Len(t, slow.unread, 3)
	slow.busy = time.Hour
	c.advance(2 * stalledAfter)
	assert.Empty(t, slow.unread)
	assert.Equal(t, 3, c.pool.queue.len())
	assert.True(t, slow.hungry, "whoever runs dry from now on says so")
	assert.NotEmpty(t, starting.boot().unread)
}

// Behind a slow task of the only worker nobody is sooner: what lies there stays, in its order.
func TestNothingIsTakenBackFromTheOnlyWorker(t *testing.T) {
	c := newAheadBench(t)
	slow := c.worker().boot()
	c.occupy(slow, 10*time.Microsecond)
	c.submit(3)
	slow.busy = time.Hour
	c.advance(2 * stalledAfter)
	assert.Len(t, slow.unread, 3)
	assert.NotEmpty(t, c.worker().boot().unread, "a second one takes its share")
}

// While tasks that were sent ahead are begun in time the ticks go on, and end with the last of them.
func TestTicksEndWithTheTasksAhead(t *testing.T) {
	c := newAheadBench(t)
	w := c.worker().boot()
	c.worker() // somebody for whom a task could be taken back
	running := c.occupy(w, 10*time.Microsecond)
	c.submit(1)
	c.advance(5 * time.Millisecond)
	require.Equal(t, []TaskID{w.unread[0]}, w.unread, "it is left where it is")
	require.False(t, c.sink.alarm.IsZero())
	w.finish(running)
	w.finish(w.begin())
	c.advance(time.Second)
	assert.True(t, c.sink.alarm.IsZero(), "an idle pool is not woken up")
}

// A task that waits for a later one never deadlocks while another worker is free, and k long tasks
// on k workers begin at once, whatever short ones came before: wherever they lie, ticks bring one to
// each worker.
func TestLongTasksBeginWhateverCameBefore(t *testing.T) {
	for _, ahead := range []SendAhead{AheadAuto, AheadNever, AheadAlways} {
		for workers := 1; workers <= 5; workers++ {
			c := newAheadBench(t)
			c.pool.cfg.SendAhead = ahead
			crew := make([]*fakeWorker, workers)
			for i := range crew {
				crew[i] = c.worker().boot()
				if i == 0 {
					c.measure(crew[i], time.Microsecond)
				}
			}
			c.submit(workers)
			for _, w := range crew {
				w.awake = true
			}
			// Long from now on, and all of them wait for the last.
			for range 10 * workers {
				c.advance(time.Millisecond)
				for _, w := range crew {
					if w.busy == 0 && len(w.unread) > 0 {
						w.begin()
						w.busy = time.Hour
					}
				}
			}
			for _, w := range crew {
				assert.NotZero(t, w.busy, "%d workers, send ahead %v", workers, ahead)
			}
		}
	}
}

// A death with tasks sent ahead fails the one that was begun; the others run elsewhere, once.
func TestDeathWithTasksAhead(t *testing.T) {
	b := newBench(t, Config{SendAhead: AheadAlways})
	w := b.worker().boot()
	b.submit(6)
	w.finish(w.begin())
	w.begin()
	w.die(ExitStatus{Code: -11, Known: true})
	require.Equal(t, []uint64{0, 1}, b.sink.indices())
	require.Equal(t, StatusLost, b.sink.outcomes[1].Status)
	require.Zero(t, b.pool.ahead)
	next := b.worker().boot()
	for len(next.unread) > 0 {
		next.finish(next.begin())
	}
	assert.Equal(t, []uint64{0, 1, 2, 3, 4, 5}, b.sink.indices())
}

// A worker never gets more tasks than it may do in its life.
func TestMaxTasksAhead(t *testing.T) {
	b := newBench(t, Config{SendAhead: AheadAlways, MaxTasks: 3})
	w := b.worker().boot()
	b.submit(10)
	w.finish(w.begin())
	assert.Len(t, w.unread, 2)
}

// A worker that has not read even its first task is idle again when all of it is taken back.
func TestTakeBackEverything(t *testing.T) {
	b := newBench(t, Config{SendAhead: AheadAlways})
	w := b.worker().boot()
	b.submit(4)
	w.finish(w.begin())
	require.Len(t, w.unread, 3)
	other := b.worker().boot()
	assert.NotEmpty(t, w.unread, "it is as idle as the other")
	assert.NotEmpty(t, other.unread)
}

// A worker from which all was taken back gets a task again in the same step: a queued task never
// stands beside an idle worker.
func TestNoTaskBesideAnIdleWorker(t *testing.T) {
	b := newBench(t, Config{SendAhead: AheadAlways})
	quick, stalled := b.worker().boot(), b.worker().boot()
	b.submit(4)
	stalled.finish(stalled.begin())
	require.Len(t, stalled.unread, 2, "granted, and not read")
	b.pool.workers[stalled.id].since = time.Now().Add(-time.Second)
	b.pool.workers[stalled.id].sent = time.Now().Add(-time.Second)
	b.pool.cfg.SendAhead = AheadNever
	quick.finish(quick.begin())
	assert.Len(t, quick.unread, 1)
	assert.Len(t, stalled.unread, 1)
	assert.Zero(t, b.pool.queue.len())
}

// A worker that somebody stopped while it was awake has its first task taken back, and does not get
// it again before those that run.
func TestStoppedWhileAwake(t *testing.T) {
	c := newAheadBench(t)
	works := c.worker().boot()
	stopped := c.worker().boot()
	stopped.awake = true
	c.submit(1)
	require.Len(t, stopped.unread, 1, "the one that is awake is taken")
	c.advance(unreadAfter)
	assert.Empty(t, stopped.unread)
	assert.Len(t, works.unread, 1)
}

// No tick is wasted on workers that tell of each task: whoever has room relieves the others then.
func TestNoTicksForThoseWhoTell(t *testing.T) {
	b := newAheadBench(t)
	w := b.worker().boot()
	w.tells = true
	b.measure(w, 10*time.Microsecond)
	b.submit(1)
	w.begin()
	w.awake, w.busy = true, time.Microsecond
	b.submit(1)
	require.Len(t, w.unread, 1)
	w.busy = time.Hour
	b.advance(time.Second)
	assert.Len(t, w.unread, 1, "nobody else could do it")
	assert.True(t, b.sink.alarm.IsZero())
}

// A task that waits for one that was submitted before it never waits for ever, whatever is sent ahead,
// taken back and stolen: as where workers take from one queue, in its order.
func TestTasksThatWaitForEarlierOnes(t *testing.T) {
	for seed := range uint64(400) {
		newOrderModel(t, seed).run()
	}
}

// orderModel has workers run tasks of which those from `gate` on end only when all before it have.
type orderModel struct {
	*fakeClock
	rng     *rand.Rand
	gate    TaskID
	tasks   TaskID
	crew    []*fakeWorker
	running map[*fakeWorker]TaskID
	since   map[*fakeWorker]time.Time
	done    map[TaskID]bool
}

func newOrderModel(t *testing.T, seed uint64) *orderModel {
	rng := rand.New(rand.NewPCG(seed, 3))
	m := &orderModel{fakeClock: newAheadBench(t), rng: rng, running: map[*fakeWorker]TaskID{},
		since: map[*fakeWorker]time.Time{}, done: map[TaskID]bool{}}
	m.pool.cfg.SendAhead = []SendAhead{AheadAuto, AheadAlways}[rng.IntN(2)]
	m.crew = append(m.crew, m.worker().boot())
	m.measure(m.crew[0], time.Microsecond)
	for id := range TaskID(minSamples) {
		m.done[id+1] = true
	}
	for range 1 + rng.IntN(3) {
		m.crew = append(m.crew, m.worker())
	}
	m.gate = minSamples + 2 + TaskID(rng.IntN(30))
	m.tasks = m.gate + TaskID(rng.IntN(150))
	return m
}

func (m *orderModel) run() {
	for step := 0; len(m.done) < int(m.tasks); step++ {
		require.Less(m.t, step, 20_000, "%d of %d tasks done, gate %d", len(m.done), m.tasks, m.gate)
		if submitted := TaskID(m.next); submitted < m.tasks && m.rng.IntN(3) == 0 {
			m.submit(1 + m.rng.IntN(int(m.tasks-submitted)))
		}
		m.advance([]time.Duration{time.Microsecond, 100 * time.Microsecond, 2 * time.Millisecond}[m.rng.IntN(3)])
		w := m.crew[m.rng.IntN(len(m.crew))]
		m.step(w)
		for _, w := range m.crew {
			if w.busy = 0; m.running[w] != 0 {
				w.busy = max(1, m.now.Sub(m.since[w]))
			}
		}
	}
}

// step lets a worker do the next thing of its life.
func (m *orderModel) step(w *fakeWorker) {
	id := m.running[w]
	switch {
	case m.pool.workers[w.id].state == Starting:
		w.boot()
	case id == 0 && len(w.unread) > 0:
		m.running[w], m.since[w], w.awake = w.begin(), m.now, true
	case id == 0:
		w.awake = false
	case id < m.gate || m.allBefore(m.gate):
		m.running[w], w.busy = 0, 0
		m.done[id] = true
		w.finish(id)
	}
	for _, w := range m.pool.workers {
		require.True(m.t, slices.IsSortedFunc(w.leases, func(a, b *Task) int { return int(a.ID) - int(b.ID) }))
	}
}

func (m *orderModel) allBefore(gate TaskID) bool {
	for id := TaskID(1); id < gate; id++ {
		if !m.done[id] {
			return false
		}
	}
	return true
}

// A pool that is made smaller keeps the worker with the older task: a younger one may wait for what the
// older one has behind it.
func TestResizeKeepsTheOlderTask(t *testing.T) {
	c := newClockBench(t, Limits{Size: 2})
	c.pool.cfg.SendAhead = AheadAlways
	younger, older := c.worker().boot(), c.worker()
	c.submit(1)
	first := younger.begin()
	older.boot()
	c.submit(2)
	require.Len(t, older.unread, 1)
	older.begin()
	younger.finish(first)
	younger.begin() // the third task, while the second runs
	c.pool.Resize(1)
	assert.True(t, c.pool.workers[younger.id].retire)
	assert.False(t, c.pool.workers[older.id].retire)
}
