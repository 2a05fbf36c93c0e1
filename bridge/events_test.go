// SPDX-License-Identifier: MIT

package bridge_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"gopool/bridge"
)

// TestEvents expects the numbers in the order in which they came, the end after them, and a wake-up
// for each of both.
func TestEvents(t *testing.T) {
	type step struct {
		act   string
		value int // Add's argument, Next's or the eventfd's result
	}
	add := func(worker int) step { return step{"add", worker} }
	next := func(want int) step { return step{"next", want} }
	woken := func(times int) step { return step{"woken", times} }
	end := step{act: "end"}
	tests := []struct {
		name  string
		steps []step
	}{
		{"nothing", []step{woken(0), next(0), next(0), woken(0)}},
		{"one", []step{add(3), woken(1), next(3), next(0)}},
		{"in order", []step{add(3), add(1), add(2), woken(3), next(3), next(1), next(2), next(0)}},
		{"end", []step{end, woken(1), next(-1), next(-1)}},
		{"end after the last", []step{add(1), end, next(1), next(-1)}},
		{"while reading", []step{add(1), next(1), next(0), add(2), woken(2), next(2), next(0)}},
		{"after the end", []step{end, add(1), next(1), next(-1), woken(2)}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			fd := newEventFD(t)
			events := bridge.NewEvents(fd)
			for i, s := range tt.steps {
				switch s.act {
				case "add":
					events.Add(s.value)
				case "end":
					events.End()
				case "next":
					require.Equal(t, s.value, events.Next(), "step %d", i)
				case "woken":
					require.Equal(t, s.value, rings(t, fd), "step %d", i)
				}
			}
		})
	}
}

// TestEventsConcurrently expects a reader that sleeps on the eventfd to miss no number.
func TestEventsConcurrently(t *testing.T) {
	const writers, each = 4, 200
	fd := newEventFD(t)
	events := bridge.NewEvents(fd)
	done := make(chan struct{}, writers)
	for w := range writers {
		go func() {
			for i := range each {
				events.Add(1 + w*each + i)
			}
			done <- struct{}{}
		}()
	}
	go func() {
		for range writers {
			<-done
		}
		events.End()
	}()
	seen := make(map[int]bool)
	for {
		switch worker := events.Next(); worker {
		case -1:
			assert.Len(t, seen, writers*each)
			return
		case 0:
			require.NoError(t, awaitReadable(fd))
			rings(t, fd)
		default:
			require.False(t, seen[worker], "number %d came twice", worker)
			seen[worker] = true
		}
	}
}
