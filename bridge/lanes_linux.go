// SPDX-License-Identifier: MIT

package bridge

import (
	"slices"

	"gopool/gopool"
)

// This file is how a pool looks into the lanes of its workers. Nobody tells when an outcome lies
// there, unless somebody sleeps until one does: whoever comes to Go for anything looks.

// join begins to look into a worker's lane.
func (w *PoolWires) join(l *WorkerLink) {
	w.lanes.Lock()
	defer w.lanes.Unlock()
	w.links = append(w.links, l)
	if l.lane != nil && w.listening.Load() {
		l.lane.listen(listenCollector)
	}
}

// part unmaps the lane of an ended worker. Neither the pool's lock nor the link's may be held.
func (w *PoolWires) part(gone func(*WorkerLink) bool) {
	w.lanes.Lock()
	defer w.lanes.Unlock()
	w.links = slices.DeleteFunc(w.links, func(l *WorkerLink) bool {
		if !gone(l) {
			return false
		}
		if l.lane != nil {
			l.lane.close()
		}
		return true
	})
}

// Reaped is gopool.Pool.Reaped; Python may close the worker's descriptors afterwards.
func (w *PoolWires) Reaped(id gopool.WorkerID, exit gopool.ExitStatus) (gopool.Verdict, error) {
	verdict, err := w.Pool.Reaped(id, exit)
	w.part(func(l *WorkerLink) bool { return l.id == id })
	w.LookAgain()
	return verdict, err
}

// Drain hands over all outcomes that lie in lanes.
func (w *PoolWires) Drain() {
	w.lanes.RLock()
	defer w.lanes.RUnlock()
	for _, l := range w.links {
		l.drain()
	}
}

// LookAgain drains the lanes as long as the pool asks for it. No lock is held.
func (w *PoolWires) LookAgain() {
	for w.look.Swap(false) {
		w.Drain()
	}
}

// Submit is gopool.Pool.Submit.
func (w *PoolWires) Submit(t *gopool.Task) (load uint64, err error) {
	load, err = w.Pool.Submit(t)
	w.LookAgain()
	return load, err
}

// SubmitAll is gopool.Pool.SubmitAll.
func (w *PoolWires) SubmitAll(tasks []gopool.Task) (load uint64, err error) {
	load, err = w.Pool.SubmitAll(tasks)
	w.LookAgain()
	return load, err
}

// Take is Outcomes.Take, of what lies in lanes too. Where it says that there is nothing, workers
// wake the collector.
func (w *PoolWires) Take(consumed int) int {
	if w.ignore() {
		w.Outcomes.Awake() // a worker may have woken it: nobody needs to
	}
	w.Drain()
	w.LookAgain()
	state := w.Outcomes.Take(consumed)
	if state != 0 {
		return state
	}
	w.listen()
	return 0
}

// Borrow looks for a job's small value, for some microseconds where that has paid before, and copies it
// to the start of area. The result is its size in bytes; 0: it is not there, not the next one, or for
// the collector to read. Return follows.
func (w *PoolWires) Borrow(job uint64, area []byte) (size int) {
	if !w.Outcomes.claim() {
		return 0
	}
	w.ignore()
	w.spin.until(func() bool {
		w.Drain()
		w.LookAgain()
		payload, ok := w.Outcomes.lend(job, len(area))
		size = copy(area, payload)
		return ok
	})
	w.Outcomes.unclaim()
	w.listen()
	return size
}

// Terminate is gopool.Pool.Terminate, for workers whose outcome did not lie in a lane before: those
// are done, and may end in order.
func (w *PoolWires) Terminate() {
	w.Drain()
	w.Pool.Terminate()
	w.LookAgain()
}

// listen has workers wake the collector.
func (w *PoolWires) listen() {
	w.listening.Store(true)
	w.tell((*lane).listen)
	w.Drain() // what came before they were told wakes it through the outcomes
	w.LookAgain()
}

// ignore undoes listen; false: there was nothing to undo.
func (w *PoolWires) ignore() bool {
	if !w.listening.Swap(false) {
		return false
	}
	w.tell((*lane).ignore)
	return true
}

func (w *PoolWires) tell(how func(*lane, uint32)) {
	w.lanes.RLock()
	defer w.lanes.RUnlock()
	for _, l := range w.links {
		if l.lane != nil {
			how(l.lane, listenCollector)
		}
	}
}

// tick is the alarm's: what is due may depend on what lies in a lane.
func (w *PoolWires) tick() {
	w.Drain()
	w.Pool.Tick()
	w.LookAgain()
}

// Cancel is gopool.Pool.Cancel, for tasks whose outcome did not lie in a lane before.
func (w *PoolWires) Cancel(job uint64, tasks int, terminate bool) (running int) {
	w.Drain()
	running = w.Pool.Cancel(job, tasks, terminate)
	w.LookAgain()
	return running
}

// Place is gopool.Pool.Place; see Cancel.
func (w *PoolWires) Place(job uint64) gopool.TaskPlace {
	w.Drain()
	return w.Pool.Place(job)
}
