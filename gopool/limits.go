// SPDX-License-Identifier: MIT

package gopool

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Limits bound what workers may use and how long they live.
type Limits struct {
	Size         int           // workers that the pool should have
	MemoryHard   uint64        // bytes resident beyond which a worker is ended at once; 0: none
	MemorySoft   uint64        // bytes resident beyond which it retires after its task; 0: none
	MaxAge       time.Duration // after which a worker retires; 0: none
	IdleTimeout  time.Duration // without a task, after which it goes until there is work; 0: none
	StartTimeout time.Duration // from a process's start until it is ready; 0: none
	Grace        time.Duration // between SIGTERM and SIGKILL
	Tree         bool          // workers end with all processes below them, whatever ends them
}

// memoryPeriod is how often the memory of busy workers is looked at: an allocation of a GB takes
// longer than this, and a look 20 us.
const memoryPeriod = 100 * time.Millisecond

// SetLimits is called before the first worker is added.
func (p *Pool) SetLimits(l Limits) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.limits = l
}

// Limits returns a copy.
func (p *Pool) Limits() Limits {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.limits
}

// Resize changes how many workers the pool should have. Those that are too many retire, idle ones
// first, busy ones after their task; Python starts those that are missing.
func (p *Pool) Resize(size int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.limits.Size = size
	staying := make([]*worker, 0, len(p.workers))
	for _, w := range p.workers {
		if w.staying() {
			staying = append(staying, w)
		}
	}
	surplus := len(staying) - size
	if surplus <= 0 {
		return
	}
	// Idle before starting before busy; of busy ones that with the youngest task, of equals the youngest.
	rank := map[WorkerState]int{Idle: 0, Initializing: 1, Starting: 1, Busy: 2}
	slices.SortFunc(staying, func(a, b *worker) int {
		if d := rank[a.state] - rank[b.state]; d != 0 {
			return d
		}
		if a.state == Busy { // what an older task waits for goes on
			if d := cmp.Compare(b.leases[0].ID, a.leases[0].ID); d != 0 {
				return d
			}
		}
		return int(b.id) - int(a.id)
	})
	for _, w := range staying[:surplus] {
		p.retire(w, "the pool was made smaller")
	}
	p.dispatch()
	p.appetite()
}

// staying says that a worker is not on its way out.
func (w *worker) staying() bool {
	return !w.retire && w.state != Retiring && w.state != Stopping && w.state != Exited
}

// retire has a worker end in order as soon as it runs no task.
func (p *Pool) retire(w *worker, why string) {
	if !w.staying() {
		return
	}
	w.retire = true
	p.stats.Retired++
	p.tell(EventRetire, w, nil, why)
	if w.state == Busy {
		p.takeBack(w, 0) // which makes it idle where it had not begun anything
	}
	if w.state == Idle || w.state == Starting || w.state == Initializing {
		p.end(w)
		p.leave(w)
	}
}

// checkMemory looks at what a busy worker uses.
func (p *Pool) checkMemory(w *worker, now time.Time) {
	hard, soft := p.limits.MemoryHard, p.limits.MemorySoft
	if hard == 0 && soft == 0 || w.state != Busy {
		return
	}
	used := w.link.Memory()
	switch {
	case hard > 0 && used > hard:
		w.reason = fmt.Sprintf("it used %d bytes of memory, more than worker_memory_limit (%d)",
			used, hard)
		p.tell(EventLimit, w, nil, w.reason)
		p.takeBack(w, 0)
		p.dropIdle(w)
		w.state, w.asked = Stopping, true
		w.link.Kill(true) // its task is settled when it is gone
		return
	case soft > 0 && used > soft:
		p.retire(w, fmt.Sprintf("it used %d bytes of memory, more than "+
			"worker_memory_soft_limit (%d)", used, soft))
	}
	if w.state == Busy {
		p.arm(now.Add(memoryPeriod))
	}
}

// checkStart kills a worker that takes too long to become ready, which counts as a failed start.
func (p *Pool) checkStart(w *worker, now time.Time) {
	limit := p.limits.StartTimeout
	if limit == 0 || w.ready || w.overdue || w.state == Exited {
		return
	}
	if due := w.added.Add(limit); now.Before(due) {
		p.arm(due)
		return
	}
	w.overdue = true
	w.reason = fmt.Sprintf("it was not ready after %v, its worker_start_timeout", limit)
	p.tell(EventLimit, w, nil, w.reason)
	w.state = Stopping
	w.link.Kill(true)
}

// checkLife retires a worker that is too old, or was idle for too long.
func (p *Pool) checkLife(w *worker, now time.Time) {
	if !w.staying() {
		return
	}
	if age := p.limits.MaxAge; age > 0 && w.ready {
		if due := w.readySince.Add(age); now.Before(due) {
			p.arm(due)
		} else {
			p.retire(w, "it has reached worker_max_age")
			return
		}
	}
	if idle := p.limits.IdleTimeout; idle > 0 && w.state == Idle {
		if due := w.idleSince.Add(idle); now.Before(due) {
			p.arm(due)
		} else {
			p.retire(w, "it was idle for worker_idle_timeout")
		}
	}
}

// rest makes a worker wait for a task.
func (p *Pool) rest(w *worker) {
	w.state = Idle
	p.idle = append(p.idle, w)
	if !p.looking && len(p.idle) < len(p.workers) { // once while anything goes on
		p.lookForUnread(p.now())
	}
	if p.limits.IdleTimeout > 0 {
		w.idleSince = p.now()
		p.arm(w.idleSince.Add(p.limits.IdleTimeout))
	}
}

// watch asks for the ticks that a worker with a new task needs.
func (p *Pool) watch(w *worker, t *Task, now time.Time) {
	if timeout := t.timeout(); timeout > 0 {
		p.arm(now.Add(timeout))
	}
	if !p.looking && len(p.idle) > 0 {
		p.lookForUnread(now)
	}
	if p.limits.MemoryHard > 0 || p.limits.MemorySoft > 0 {
		p.arm(now.Add(memoryPeriod))
	}
}

// summon asks Python for a worker where idle ones were let go and work has come. It asks for one
// at a time: AddWorker asks for the next.
func (p *Pool) summon() {
	if p.limits.IdleTimeout == 0 || p.summoned || p.queue.len() == 0 || len(p.idle) > 0 ||
		p.broken != nil || len(p.workers) >= p.limits.Size {
		return
	}
	coming := 0
	for _, w := range p.workers {
		if w.state == Starting || w.state == Initializing {
			coming++
		}
	}
	if coming < p.queue.len() {
		p.summoned = true
		p.sink.Summon()
	}
}

// wanted says whether another worker is wanted where one has gone.
func (p *Pool) wanted() bool {
	switch {
	case p.finishing() || p.broken != nil:
		return false
	case p.limits.Size == 0: // never set: the pool keeps what it was given
		return true
	case p.limits.IdleTimeout > 0 && p.queue.len() == 0:
		return false
	}
	return len(p.workers) < p.limits.Size
}
