// SPDX-License-Identifier: MIT

package gopool

import (
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
	require.Equal(t, maxAhead, p.within(aheadTime))
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

// A worker that runs dry takes what another has not begun, oldest first.
func TestSteal(t *testing.T) {
	b := newBench(t, Config{SendAhead: AheadAlways})
	busy := b.worker().boot()
	b.submit(5)
	busy.finish(busy.begin())
	running := busy.begin()
	require.Len(t, busy.unread, 3)
	idle := b.worker().boot()
	require.Equal(t, []TaskID{3}, idle.unread)
	assert.Empty(t, busy.unread)
	idle.finish(idle.begin())
	assert.Equal(t, []TaskID{4, 5}, idle.unread)
	busy.finish(running)
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
	assert.Len(t, idle.unread, 1, "with an idle worker and an unbegun task")
}

// A task behind one that has become slow goes to whoever has room next, before younger ones.
func TestRelieve(t *testing.T) {
	b := newBench(t, Config{SendAhead: AheadAlways})
	slow, quick := b.worker().boot(), b.worker().boot()
	b.submit(2 + 4*maxAhead)
	slow.finish(slow.begin())
	slow.begin()
	behind := slow.unread[0]
	b.pool.workers[slow.id].since = time.Now().Add(-time.Second)
	quick.finish(quick.begin())
	assert.Equal(t, behind, quick.unread[0])
	assert.Empty(t, slow.unread)
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
	b.pool.cfg.SendAhead = AheadNever
	quick.finish(quick.begin())
	assert.Len(t, quick.unread, 1)
	assert.Len(t, stalled.unread, 1)
	assert.Zero(t, b.pool.queue.len())
}
