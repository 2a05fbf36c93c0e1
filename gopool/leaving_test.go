// SPDX-License-Identifier: MIT

package gopool

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// leavers are the ways in which a worker comes to end in order while its pool goes on. Each leaves
// one worker that is about to end.
var leavers = map[string]func(t *testing.T, l Limits) (*fakeClock, *fakeWorker){
	"tasks": func(t *testing.T, l Limits) (*fakeClock, *fakeWorker) {
		c := newClockBench(t, l)
		c.pool.cfg.MaxTasks = 1
		w := c.worker().boot()
		c.ask(Options{})
		w.finish(w.begin())
		return c, w
	},
	"age": func(t *testing.T, l Limits) (*fakeClock, *fakeWorker) {
		l.MaxAge = time.Minute
		c := newClockBench(t, l)
		w := c.worker().boot()
		c.advance(time.Minute)
		assert.True(t, w.stopped)
		return c, w
	},
	"age, busy": func(t *testing.T, l Limits) (*fakeClock, *fakeWorker) {
		l.MaxAge = time.Minute
		c := newClockBench(t, l)
		w := c.worker().boot()
		c.ask(Options{})
		id := w.begin()
		c.advance(time.Hour)
		w.finish(id)
		assert.True(t, w.stopped)
		return c, w
	},
	"memory": func(t *testing.T, l Limits) (*fakeClock, *fakeWorker) {
		l.MemorySoft = 100
		c := newClockBench(t, l)
		w := c.worker().boot()
		w.memory = 200
		c.ask(Options{})
		id := w.begin()
		c.advance(memoryPeriod)
		w.finish(id)
		assert.True(t, w.stopped)
		return c, w
	},
}

// A worker that retires and does not end is killed after the grace, and replaced: its place is not
// lost. Its end is no crash.
func TestLeaverIsKilled(t *testing.T) {
	for name, leaver := range leavers {
		for _, grace := range []time.Duration{time.Nanosecond, 500 * time.Millisecond, time.Minute} {
			t.Run(name+" "+grace.String(), func(t *testing.T) {
				c, w := leaver(t, Limits{Size: 1, Grace: grace})
				c.advance(max(LeaveGraces*grace, LeastLeave) - time.Microsecond)
				assert.Empty(t, w.signals)
				c.advance(time.Microsecond)
				assert.Equal(t, []string{"KILL"}, w.signals)
				assert.Contains(t, c.kinds(), EventLimit)
				assert.True(t, c.pool.Asked(w.id))
				assert.Equal(t, Verdict{Replace: true}, w.die(killed))
				c.advance(time.Hour)
				assert.Equal(t, []string{"KILL"}, w.signals)
			})
		}
	}
}

// One that ends in its time gets no signal, and nothing wakes up for it twice.
func TestLeaverThatEnds(t *testing.T) {
	for name, leaver := range leavers {
		t.Run(name, func(t *testing.T) {
			c, w := leaver(t, Limits{Size: 1})
			c.advance(c.pool.leaveTime() - time.Millisecond)
			assert.Equal(t, Verdict{Replace: true}, w.die(ExitStatus{Known: true}))
			c.advance(time.Second)
			assert.Empty(t, w.signals)
			assert.NotContains(t, c.kinds(), EventLimit)
			assert.True(t, c.sink.alarm.IsZero())
		})
	}
}

// A pool that needs no worker any more lets one that leaves take its time, as those that it stops.
func TestLeaverOfAClosedPool(t *testing.T) {
	for name, leaver := range leavers {
		t.Run(name, func(t *testing.T) {
			c, w := leaver(t, Limits{Size: 1})
			c.pool.Close()
			c.advance(time.Hour)
			assert.Empty(t, w.signals)
		})
	}
}

// One that waits for its children is let be as long as it has any; then it goes with what is left.
func TestLeaverWithChildren(t *testing.T) {
	c, w := leavers["tasks"](t, Limits{Size: 1, Tree: true})
	w.children = true
	c.advance(time.Hour)
	assert.Empty(t, w.signals)
	w.children = false
	c.advance(c.pool.leaveTime())
	assert.Equal(t, []string{"KILL tree"}, w.signals)
}

// The children of a worker in a pool whose workers don't wait for them change nothing.
func TestLeaverWithStrangers(t *testing.T) {
	c, w := leavers["tasks"](t, Limits{Size: 1})
	w.children = true
	c.advance(c.pool.leaveTime())
	assert.Equal(t, []string{"KILL"}, w.signals)
}
