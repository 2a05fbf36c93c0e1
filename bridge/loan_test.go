// SPDX-License-Identifier: MIT

package bridge_test

import (
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"gopool/bridge"
	"gopool/gopool"
)

const (
	waited = 7 // the job whose waiter borrows
	other  = 8
)

func valueOfJob(job uint64, payload string) *gopool.Outcome {
	return &gopool.Outcome{Job: job, Payload: []byte(payload), Region: gopool.NoRegion, TaskRegion: -1}
}

// lentText is what a loan of the waited job gives to read; "" where there is none.
func lentText(q *bridge.Outcomes, c *collector) string {
	place := q.ValueOf(waited)
	at, size := place>>32, place&math.MaxUint32
	return string(c.mem[at : at+size])
}

// asleep is a ring whose collector sleeps.
func asleep(t *testing.T) (*bridge.Outcomes, *collector) {
	t.Helper()
	q, c := newOutcomes(t, 1024)
	require.Zero(t, q.Take(0))
	return q, c
}

// TestLoan expects a waiter to read its value while the collector sleeps on, which finds what comes
// after it.
func TestLoan(t *testing.T) {
	q, c := asleep(t)
	require.True(t, q.Claim(waited))
	assert.Empty(t, lentText(q, c), "nothing has come")
	q.Deliver(valueOfJob(waited, "mine"))
	assert.Equal(t, "mine", lentText(q, c))
	assert.Zero(t, q.Take(0), "the collector is not to read it")
	require.True(t, q.TakeBack(waited, true))
	assert.Zero(t, rings(t, c.wake), "it sleeps through all of this")
	q.Deliver(valueOfJob(other, "another's"))
	assert.Equal(t, 1, rings(t, c.wake))
	r, err := c.wait()
	require.NoError(t, err)
	assert.Equal(t, "another's", string(r.payload))
}

// TestLoanReturnedUnread expects the collector to be woken for what a waiter did not settle.
func TestLoanReturnedUnread(t *testing.T) {
	q, c := asleep(t)
	require.True(t, q.Claim(waited))
	q.Deliver(valueOfJob(waited, "mine"))
	require.NotEmpty(t, lentText(q, c))
	assert.Zero(t, rings(t, c.wake))
	require.True(t, q.TakeBack(waited, false))
	assert.Equal(t, 1, rings(t, c.wake))
	r, _ := c.next()
	assert.Equal(t, "mine", string(r.payload))
}

// TestLoanOfWhatFollows expects what came after the lent record to wake the collector.
func TestLoanOfWhatFollows(t *testing.T) {
	q, c := asleep(t)
	require.True(t, q.Claim(waited))
	q.Deliver(valueOfJob(waited, "mine"))
	q.Deliver(valueOfJob(other, "another's"))
	require.True(t, q.TakeBack(waited, true))
	assert.Equal(t, 1, rings(t, c.wake))
	r, _ := c.next()
	assert.Equal(t, "another's", string(r.payload))
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
		{"an event", func(q *bridge.Outcomes) { q.Tell(&gopool.Event{}) }},
		{"a worker's end", func(q *bridge.Outcomes) {
			q.Deliver(valueOfJob(waited, "mine"))
			q.Poke()
		}},
		{"the end", func(q *bridge.Outcomes) { q.Drained() }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			q, c := asleep(t)
			require.True(t, q.Claim(waited))
			tt.come(q)
			assert.Zero(t, q.ValueOf(waited))
			assert.Zero(t, rings(t, c.wake), "not before it is returned")
			require.True(t, q.TakeBack(waited, false))
			assert.Equal(t, 1, rings(t, c.wake))
		})
	}
}

// TestClaim expects one reader at a time.
func TestClaim(t *testing.T) {
	q, _ := newOutcomes(t, 1024)
	assert.False(t, q.Claim(waited), "the collector reads")
	assert.False(t, q.TakeBack(waited, true), "and is not disturbed")
	require.Zero(t, q.Take(0))
	require.True(t, q.Claim(waited))
	assert.False(t, q.Claim(other))
	assert.False(t, q.TakeBack(other, true), "another's loan")
	require.True(t, q.TakeBack(waited, false))
	assert.True(t, q.Claim(other))
}

// TestForgottenLoan expects the collector to go on where nobody returns a loan: a signal's handler
// raised twice in the waiter.
func TestForgottenLoan(t *testing.T) {
	q, c := asleep(t)
	require.True(t, q.Claim(waited))
	q.Deliver(valueOfJob(waited, "mine"))
	q.AgeLoan()
	q.Deliver(valueOfJob(other, "another's"))
	assert.Equal(t, 1, rings(t, c.wake))
	for _, want := range []string{"mine", "another's"} {
		r, _ := c.next()
		assert.Equal(t, want, string(r.payload))
	}
	assert.False(t, q.TakeBack(waited, true))
}
