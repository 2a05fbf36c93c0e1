// SPDX-License-Identifier: MIT

package gopool

// Cancel drops the tasks of a job that no worker has begun: those still to be submitted as well.
// Those that run are cut short where terminate is set; else they go on. The result is how many go
// on.
//
// tasks is how many tasks of the job are not settled. A job's only task that runs on is not
// cancelled, so nothing changes then.
func (p *Pool) Cancel(job uint64, tasks int, terminate bool) (running int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.terminated || tasks <= 0 {
		return 0
	}
	begun := p.begun(job)
	if len(begun) > 0 && !terminate && tasks == 1 {
		p.dispatch() // what else was taken back
		p.appetite()
		return 1
	}
	p.cancelled[job] = tasks
	now := p.now()
	if terminate {
		for w, t := range begun {
			failure := w.lost(ExitStatus{}, t, now)
			p.release(w, t)
			p.expel(w, now)
			p.finish(t, &Outcome{Status: StatusCancelled, Failure: failure})
		}
		begun = nil
	}
	if p.unsettled == 0 {
		clear(p.cancelled) // the tasks never came
	}
	p.dispatch()
	p.appetite()
	return len(begun)
}

// begun finds the tasks of a job that workers have begun; what was only sent to those workers goes
// back to the queue.
func (p *Pool) begun(job uint64) map[*worker]*Task {
	begun := make(map[*worker]*Task)
	for _, w := range p.workers {
		if !w.holds(job) || w.state != Busy {
			continue
		}
		p.takeBack(w, 0)
		// What is left was begun: it runs the last one, and the outcomes of those before it are
		// on their way.
		if n := len(w.leases); n > 0 && w.leases[n-1].Job == job {
			begun[w] = w.leases[n-1]
		}
	}
	return begun
}

// TaskPlace says where the tasks of a job are.
type TaskPlace int

// The places, the later ones further on.
const (
	PlaceElsewhere TaskPlace = iota // queued, settled, or not submitted
	PlaceSent                       // on its way to a worker
	PlaceRunning                    // with a worker that has nothing to do before it
)

// Place returns the furthest place of any task of a job.
func (p *Pool) Place(job uint64) TaskPlace {
	p.mu.Lock()
	defer p.mu.Unlock()
	place := PlaceElsewhere
	for _, w := range p.workers {
		for i, t := range w.leases {
			switch {
			case t.Job != job:
			case i == 0:
				return PlaceRunning
			default:
				place = PlaceSent
			}
		}
	}
	return place
}

func (p *Pool) isCancelled(t *Task) bool {
	if len(p.cancelled) == 0 {
		return false
	}
	_, found := p.cancelled[t.Job]
	return found
}

// next takes the oldest queued task that nobody has cancelled, or returns nil.
func (p *Pool) next() *Task {
	for {
		t := p.queue.pop()
		if t == nil || !p.isCancelled(t) {
			return t
		}
		p.finish(t, &Outcome{Status: StatusCancelled})
	}
}

// forgetCancelled counts a settled task of a cancelled job.
func (p *Pool) forgetCancelled(job uint64) {
	left, found := p.cancelled[job]
	switch {
	case !found:
	case left <= 1:
		delete(p.cancelled, job)
	default:
		p.cancelled[job] = left - 1
	}
	if p.unsettled == 0 {
		clear(p.cancelled)
	}
}
