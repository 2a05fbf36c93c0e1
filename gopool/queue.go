// SPDX-License-Identifier: MIT

package gopool

import (
	"cmp"
	"slices"
)

// taskQueue holds the tasks that wait for a worker, oldest first.
//
// Tasks taken back from a worker return to the front, each to its place by age among those that were
// taken back before: they are older than all others. The zero value is an empty queue. Not safe for
// concurrent use; Pool.mu guards it.
type taskQueue struct {
	returned []*Task // taken back, the next one last
	unsorted bool    // returned is yet to be sorted
	waiting  []*Task
	head     int // waiting[:head] is taken already
}

// compactAt is how many taken slots are kept before the rest moves down (arbitrary; the copying
// is amortised because at least half of the slice is free by then).
const compactAt = 1024

func (q *taskQueue) len() int { return len(q.returned) + len(q.waiting) - q.head }

func (q *taskQueue) push(t *Task) { q.waiting = append(q.waiting, t) }

// putBack returns tasks that were taken before, oldest first.
func (q *taskQueue) putBack(tasks ...*Task) {
	before := len(q.returned)
	q.returned = append(q.returned, tasks...)
	slices.Reverse(q.returned[before:])
	if before > 0 && before < len(q.returned) && q.returned[before].ID > q.returned[before-1].ID {
		q.unsorted = true
	}
}

// sort is done once for all that was put back at a time.
func (q *taskQueue) sort() {
	if q.unsorted {
		q.unsorted = false
		slices.SortFunc(q.returned, func(a, b *Task) int { return cmp.Compare(b.ID, a.ID) })
	}
}

// peek returns the oldest task without taking it, or nil.
func (q *taskQueue) peek() *Task {
	q.sort()
	switch {
	case len(q.returned) > 0:
		return q.returned[len(q.returned)-1]
	case q.head < len(q.waiting):
		return q.waiting[q.head]
	}
	return nil
}

// pop takes the oldest task, or returns nil.
func (q *taskQueue) pop() *Task {
	q.sort()
	if n := len(q.returned); n > 0 {
		t := q.returned[n-1]
		q.returned[n-1] = nil
		q.returned = q.returned[:n-1]
		return t
	}
	if q.head == len(q.waiting) {
		return nil
	}
	t := q.waiting[q.head]
	q.waiting[q.head] = nil
	q.head++
	q.compact()
	return t
}

func (q *taskQueue) compact() {
	switch {
	case q.head == len(q.waiting):
		q.waiting, q.head = q.waiting[:0], 0
	case q.head >= compactAt && q.head*2 >= len(q.waiting):
		n := copy(q.waiting, q.waiting[q.head:])
		clear(q.waiting[n:])
		q.waiting, q.head = q.waiting[:n], 0
	}
}

// drain takes everything, oldest first.
func (q *taskQueue) drain() []*Task {
	tasks := make([]*Task, 0, q.len())
	for t := q.pop(); t != nil; t = q.pop() {
		tasks = append(tasks, t)
	}
	return tasks
}
