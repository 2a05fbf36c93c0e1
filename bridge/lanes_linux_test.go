// SPDX-License-Identifier: MIT

package bridge_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"gopool/gopool"
)

// newLaneScene is newScene with an actor that uses its lane.
func newLaneScene(t *testing.T, payloads ...string) *scene {
	t.Helper()
	return sceneWith(t, "lane", payloads...)
}

// TestLaneServes expects tasks to go by the lane and what does not fit to go by the socket, in order.
func TestLaneServes(t *testing.T) {
	r := newRig(t)
	w := r.start("lane")
	var indices []uint64
	for i := range 500 {
		size := 10
		if i%50 == 7 {
			size = 40_000 // too large for a lane
		}
		indices = append(indices, r.submit(strings.Repeat("x", size)))
	}
	for _, index := range indices {
		got := r.outcome()
		require.Equal(t, index, got.index)
		require.Equal(t, gopool.StatusValue, got.status, "%s", got.payload)
	}
	region := r.submitRegion("in a region")
	assert.Equal(t, "in a region", r.answers(w, region)[region].Payload)
	assert.Len(t, r.answers(w, r.submit("small again")), 1)
	r.finish(w)
}

// TestLaneOffences expects a worker that breaks its lane to be killed with the reason, and nothing to
// be lost but the task that it held, where it did not do that.
func TestLaneOffences(t *testing.T) {
	reasons := map[string]string{
		"count of bytes beyond the ring": "its count of bytes makes no sense",
		"count of bytes goes back":       "its count of bytes makes no sense",
		"odd count of bytes":             "its count of bytes makes no sense",
		"outcome longer than the ring":   "longer than what was written",
		"outcome is garbage":             "not an array",
		"outcome is no outcome":          "unknown kind",
		"outcome with a region":          "region without descriptor",
		"stranger's outcome":             "task 4711, which it does not hold",
		"outcome of the last":            "does not hold",
		"garbage by the socket":          "not an array",
		"claims what there is not":       "its count of tasks makes no sense",
		"gives back what it claimed":     "its count of tasks makes no sense",
		"puts a task in":                 "its count of tasks makes no sense",

		"answers, then a message too large": "message larger than a frame",
	}
	const counts = "answers, then a message too large"
	does := map[string]bool{"claims what there is not": true, "gives back what it claimed": true,
		"puts a task in": true, counts: true}
	require.Equal(t, sortedNames(laneOffences), sortedNames(reasons))
	for _, offence := range sortedNames(laneOffences) {
		t.Run(offence, func(t *testing.T) {
			s := newLaneScene(t, offence, "a", "b")
			verdict := s.actor.reap(-int(unix.SIGKILL))
			assert.True(t, verdict.Replace)
			assert.Zero(t, verdict.After)
			got, lost := s.outcome(), 1
			require.Equal(t, s.tasks[0], got.index)
			if offence == counts {
				require.Equal(t, gopool.StatusValue, got.status)
			}
			if does[offence] && got.status == gopool.StatusValue { // it was not ended before
				lost = 0
			} else {
				require.Equal(t, gopool.StatusLost, got.status)
				_, code, _, text := got.failure(t)
				assert.Equal(t, fmt.Sprint(-int(unix.SIGKILL)), fmt.Sprint(code))
				assert.Contains(t, text, reasons[offence])
			}
			s.other.release()
			s.answers(s.other, s.held, s.tasks[1], s.tasks[2])
			assert.Equal(t, gopool.Stats{Workers: 2, Values: 5 - lost, Lost: lost, Crashes: 1},
				s.wires.Pool.Stats())
			s.finish(s.other)
		})
	}
}

// TestLaneDeaths expects a worker's end to fail the task that it had begun and no other, and what lay
// in its lane to count.
func TestLaneDeaths(t *testing.T) {
	for payload, code := range map[string]int{"hold, exit": 3, "answer, then exit": 5} {
		t.Run(payload, func(t *testing.T) {
			s := newLaneScene(t, payload, "a", "b")
			if code == 3 {
				s.actor.hears("holding")
				s.actor.release()
				assert.True(t, s.actor.reap(code).Replace)
				assert.Empty(t, s.lost(s.actor, s.tasks[0], code))
			} else {
				got := s.outcome() // before the worker is reaped
				assert.Equal(t, s.tasks[0], got.index)
				assert.Equal(t, gopool.StatusValue, got.status)
				assert.True(t, s.actor.reap(code).Replace)
			}
			s.other.release()
			s.answers(s.other, s.held, s.tasks[1], s.tasks[2])
			s.finish(s.other)
		})
	}
}

// TestLaneOfAStoppedWorker expects what lies in the lane of a worker that does not run to go to one
// that does, and the stopped one to be woken for a task of later.
func TestLaneOfAStoppedWorker(t *testing.T) {
	s := newLaneScene(t, "hold", "a", "b", "c")
	s.actor.hears("holding")
	helper := s.start("lane")
	s.answers(helper, s.tasks[1:]...)
	s.actor.release()
	s.answers(s.actor, s.tasks[0])
	s.other.release()
	s.answers(s.other, s.held)
	s.finish(s.other, s.actor, helper)
}

// TestLaneStealsBetweenProcesses has real processes claim while tasks are taken back all the time:
// each is answered once. One that ran twice would be a second outcome, which ends the worker.
func TestLaneStealsBetweenProcesses(t *testing.T) {
	r := newRig(t)
	const workers = 3
	var crew []*worker
	for range workers {
		crew = append(crew, r.start("lane"))
	}
	const tasks = 5_000
	seen := make([]int, tasks)
	answered := 0
	collect := func(got record) {
		require.Equal(t, gopool.StatusValue, got.status, "%s", got.payload)
		seen[got.index]++
		answered++
	}
	for i := range tasks {
		r.submit(fmt.Sprint("task ", i))
		for {
			got, state := r.next()
			if state <= 0 {
				break
			}
			collect(got)
		}
	}
	for answered < tasks {
		collect(r.outcome())
	}
	for index, times := range seen {
		require.Equal(t, 1, times, "task %d", index)
	}
	r.finish(crew...)
}
