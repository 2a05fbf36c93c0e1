// SPDX-License-Identifier: MIT

package bridge_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"gopool/bridge"
	"gopool/gopool"
)

const (
	waited = 7 // the job whose waiter looks
	other  = 8
	room   = 100 // bytes that the waiter has for its value
)

func valueOfJob(job uint64, payload string) *gopool.Outcome {
	return &gopool.Outcome{Job: job, Payload: []byte(payload), Region: gopool.NoRegion, TaskRegion: -1}
}

// watched is a ring whose collector sleeps, and which a waiter looks into.
func watched(t *testing.T) (*bridge.Outcomes, *collector) {
	t.Helper()
	q, c := newOutcomes(t, 1024)
	require.Zero(t, q.Take(0))
	require.True(t, q.Claim())
	return q, c
}

// payloads reads everything that is there.
func (c *collector) payloads() (all []string) {
	for {
		r, state := c.next()
		if state <= 0 {
			return all
		}
		all = append(all, string(r.payload))
	}
}

// TestLoan expects a waiter to read its value while the collector sleeps on, which finds what comes
// after it.
func TestLoan(t *testing.T) {
	q, c := watched(t)
	_, ok := q.Lend(waited, room)
	assert.False(t, ok, "nothing has come")
	q.Deliver(valueOfJob(waited, "mine"))
	got, ok := q.Lend(waited, room)
	require.True(t, ok)
	assert.Equal(t, "mine", string(got))
	q.Unclaim()
	assert.Zero(t, rings(t, c.wake), "it sleeps through all of this")
	q.Deliver(valueOfJob(other, "another's"))
	assert.Equal(t, 1, rings(t, c.wake), "nobody waits for a loan")
	assert.Equal(t, []string{"another's"}, c.payloads())
	q.Return(waited, true)
	assert.Empty(t, c.payloads())
}

// TestLoanReturnedUnread expects the collector to get what a waiter did not settle.
func TestLoanReturnedUnread(t *testing.T) {
	for _, job := range []uint64{waited, 0} {
		q, c := watched(t)
		q.Deliver(valueOfJob(waited, "mine"))
		_, ok := q.Lend(waited, room)
		require.True(t, ok)
		q.Unclaim()
		q.Return(other, false)
		assert.Zero(t, rings(t, c.wake))
		q.Return(job, false)
		assert.Equal(t, 1, rings(t, c.wake))
		assert.Equal(t, []string{"mine"}, c.payloads())
		q.Return(job, false)
		assert.Empty(t, c.payloads(), "once")
	}
}

// TestDrainedWaitsForLoans expects the collector to stay until every loan has ended.
func TestDrainedWaitsForLoans(t *testing.T) {
	for _, settled := range []bool{true, false} {
		q, c := watched(t)
		q.Deliver(valueOfJob(waited, "mine"))
		_, ok := q.Lend(waited, room)
		require.True(t, ok)
		q.Drained()
		q.Unclaim()
		rings(t, c.wake)
		require.Zero(t, q.Take(0))
		q.Return(waited, settled)
		assert.Equal(t, 1, rings(t, c.wake))
		if !settled {
			r, _ := c.next()
			assert.Equal(t, "mine", string(r.payload))
		}
		_, state := c.next()
		assert.Equal(t, -1, state)
	}
}

// TestNothingToLend expects a waiter to leave everything to the collector but its own small value.
func TestNothingToLend(t *testing.T) {
	failed := valueOfJob(waited, "")
	failed.Status = gopool.StatusError
	large := valueOfJob(waited, "")
	large.Region = gopool.Region{FD: 7, Size: 1}
	sent := valueOfJob(waited, "mine")
	sent.TaskRegion = 9
	tests := []struct {
		name string
		come func(q *bridge.Outcomes)
	}{
		{"another's", func(q *bridge.Outcomes) { q.Deliver(valueOfJob(other, "another's")) }},
		{"another's first", func(q *bridge.Outcomes) {
			q.Deliver(valueOfJob(other, "another's"))
			q.Deliver(valueOfJob(waited, "mine"))
		}},
		{"an error", func(q *bridge.Outcomes) { q.Deliver(failed) }},
		{"a region", func(q *bridge.Outcomes) { q.Deliver(large) }},
		{"a task's region to close", func(q *bridge.Outcomes) { q.Deliver(sent) }},
		{"larger than the room", func(q *bridge.Outcomes) {
			q.Deliver(valueOfJob(waited, string(make([]byte, room+1))))
		}},
		{"an event", func(q *bridge.Outcomes) { q.Tell(&gopool.Event{}) }},
		{"a worker's end", func(q *bridge.Outcomes) {
			q.Deliver(valueOfJob(waited, "mine"))
			q.Poke()
		}},
		{"the end", func(q *bridge.Outcomes) { q.Drained() }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			q, c := watched(t)
			tt.come(q)
			_, ok := q.Lend(waited, room)
			assert.False(t, ok)
			assert.Zero(t, rings(t, c.wake), "not while somebody looks")
			q.Unclaim()
			assert.Equal(t, 1, rings(t, c.wake))
		})
	}
}

// TestLendAtTheRingsEnd expects padding to be the collector's.
func TestLendAtTheRingsEnd(t *testing.T) {
	q, c := newOutcomes(t, 256)
	for i := range 3 { // three of 72 bytes leave 40
		q.Deliver(valueOfJob(uint64(100+i), "some payload"))
	}
	require.Len(t, c.payloads(), 3)
	require.True(t, q.Claim())
	q.Deliver(valueOfJob(waited, "mine"))
	_, ok := q.Lend(waited, room)
	assert.False(t, ok)
	q.Unclaim()
	assert.Equal(t, []string{"mine"}, c.payloads())
}

// TestClaim expects one reader at a time.
func TestClaim(t *testing.T) {
	q, _ := newOutcomes(t, 1024)
	assert.False(t, q.Claim(), "the collector reads")
	require.Zero(t, q.Take(0))
	require.True(t, q.Claim())
	assert.False(t, q.Claim())
	q.Unclaim()
	assert.True(t, q.Claim())
}
