// SPDX-License-Identifier: MIT

package gopool

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The queue gives tasks in order, those that came back before all others.
func TestQueueOrder(t *testing.T) {
	var q taskQueue
	for id := range TaskID(5) {
		q.push(&Task{ID: id + 8})
	}
	q.putBack(&Task{ID: 6}, &Task{ID: 7})
	q.putBack()
	q.putBack(&Task{ID: 2}, &Task{ID: 5})
	q.putBack(&Task{ID: 3}, &Task{ID: 4})
	q.putBack(&Task{ID: 1})
	require.Equal(t, 12, q.len())
	for want := TaskID(1); want <= 12; want++ {
		require.Equal(t, want, q.pop().ID)
	}
	require.Nil(t, q.pop())
}

// The queue's memory does not grow with all that ever passed through it.
func TestQueueMemory(t *testing.T) {
	var q taskQueue
	task := &Task{}
	for range 10 {
		q.push(task)
	}
	for range 100_000 {
		q.push(task)
		q.pop()
	}
	assert.Less(t, cap(q.waiting), 4*compactAt)
	assert.Len(t, q.drain(), 10)
}

// The pause before a restart doubles up to its limit and is forgotten after a success.
func TestBackoff(t *testing.T) {
	var g restartGuard
	require.Zero(t, g.backoff())
	last := time.Duration(0)
	for range 20 {
		g.startFailed()
		require.GreaterOrEqual(t, g.backoff(), last)
		last = g.backoff()
	}
	assert.Equal(t, maxBackoff, last)
	assert.True(t, g.exhausted())
	g.succeeded()
	assert.Zero(t, g.backoff())
}

// A process is counted once as ended, whether its end or its status is known first.
func TestProcesses(t *testing.T) {
	for _, endFirst := range []bool{true, false} {
		r := NewProcesses()
		id := r.Adopt(4711)
		if endFirst {
			r.Exited(id)
		}
		require.NoError(t, r.Reaped(id, ExitStatus{Code: 3, Known: true}))
		r.Exited(id)
		assert.Equal(t, ProcessStats{Adopted: 1, Exited: 1, Failed: 1}, r.Stats())
		require.ErrorIs(t, r.Reaped(id, ExitStatus{}), ErrUnknownProcess)
	}
}

// A state has a name, also one that does not exist.
func TestStateNames(t *testing.T) {
	assert.Equal(t, "retiring", Retiring.String())
	assert.Equal(t, "unknown", numWorkerStates.String())
}
