// SPDX-License-Identifier: MIT

package bridge

import "sync"

// Events carries the numbers of ended workers to the thread that reaps and replaces them, which
// sleeps on an eventfd.
type Events struct {
	wake int

	mu      sync.Mutex
	waiting []int
	ended   bool
}

// Summoned is what Next gives instead of a worker's number where one more worker is asked for.
const Summoned = -2

// NewEvents signals through wakeFD.
func NewEvents(wakeFD int) *Events { return &Events{wake: wakeFD} }

// Add queues the number of a worker, at least 1, or Summoned.
func (e *Events) Add(worker int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.waiting = append(e.waiting, worker)
	signal(e.wake)
}

// End says that nothing follows.
func (e *Events) End() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ended = true
	signal(e.wake)
}

// Next takes the oldest number. 0: none, wait on the eventfd; -1: none, and none will come.
func (e *Events) Next() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.waiting) > 0 {
		worker := e.waiting[0]
		e.waiting = e.waiting[1:]
		return worker
	}
	if e.ended {
		return -1
	}
	return 0
}
