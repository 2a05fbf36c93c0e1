// SPDX-License-Identifier: MIT

package gopool

import (
	"container/heap"
	"time"
)

// conclude hands the outcome of a task over, or has the task run again where that was asked for.
// It reports whether the outcome was handed over.
func (p *Pool) conclude(t *Task, o *Outcome) bool {
	if p.terminated || p.isCancelled(t) || !t.mayRetry(o.Status) {
		p.finish(t, o)
		return true
	}
	t.attempts++
	p.stats.Retries++
	p.tell(EventRetry, nil, t, "")
	if pause := t.pause(); pause > 0 {
		at := p.now().Add(pause)
		heap.Push(&p.delayed, delayedTask{at: at, task: t})
		p.arm(at)
		return false
	}
	p.queue.push(t)
	return false
}

// wakeDelayed queues the tasks whose pause before a retry is over.
func (p *Pool) wakeDelayed(now time.Time) {
	for len(p.delayed) > 0 && !now.Before(p.delayed[0].at) {
		p.queue.push(heap.Pop(&p.delayed).(delayedTask).task)
	}
	if len(p.delayed) > 0 {
		p.arm(p.delayed[0].at)
	}
	p.summon()
}

// delayedTask waits for its next attempt.
type delayedTask struct {
	at   time.Time
	task *Task
}

// delayedTasks is a heap with the earliest first.
type delayedTasks []delayedTask

func (d delayedTasks) Len() int           { return len(d) }
func (d delayedTasks) Less(i, j int) bool { return d[i].at.Before(d[j].at) }
func (d delayedTasks) Swap(i, j int)      { d[i], d[j] = d[j], d[i] }

// Push implements heap.Interface.
func (d *delayedTasks) Push(x any) { *d = append(*d, x.(delayedTask)) }

// Pop implements heap.Interface.
func (d *delayedTasks) Pop() any {
	last := len(*d) - 1
	x := (*d)[last]
	(*d)[last] = delayedTask{}
	*d = (*d)[:last]
	return x
}
