// SPDX-License-Identifier: MIT

package gopool

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestRandomControl drives a pool with everything that may be asked of it at random, against a
// model of what must hold: each task is settled once; it is begun no more often than its retries
// allow; a cancelled one is never begun afterwards; nothing stays behind.
func TestRandomControl(t *testing.T) {
	for seed := range uint64(300) {
		newControlModel(t, seed).run()
	}
}

type controlModel struct {
	*fakeClock
	rng       *rand.Rand
	live      map[*fakeWorker]TaskID // with what it has begun; 0: nothing
	byID      map[TaskID]uint64      // index
	begun     map[uint64]int
	allowed   map[uint64]int
	cancelled map[uint64]bool
	size      int
	wanted    int // workers to start
}

func newControlModel(t *testing.T, seed uint64) *controlModel {
	rng := rand.New(rand.NewPCG(seed, 2))
	l := Limits{Size: 1 + rng.IntN(3), Grace: time.Second}
	if rng.IntN(3) == 0 {
		l.IdleTimeout = time.Second
	}
	if rng.IntN(3) == 0 {
		l.MaxAge = 20 * time.Second
	}
	if rng.IntN(3) == 0 {
		l.MemoryHard, l.MemorySoft = 200, 100
	}
	m := &controlModel{fakeClock: newClockBench(t, l), rng: rng, size: l.Size,
		live: map[*fakeWorker]TaskID{}, byID: map[TaskID]uint64{}, begun: map[uint64]int{},
		allowed: map[uint64]int{}, cancelled: map[uint64]bool{}}
	m.pool.cfg.SendAhead = SendAhead(rng.IntN(3))
	m.wanted = m.size
	return m
}

func (m *controlModel) run() {
	const steps = 400
	for step := 0; step < steps || len(m.sink.outcomes) < int(m.next); step++ {
		require.Less(m.t, step, 50_000, "tasks are stuck")
		m.staff()
		m.act(step < steps)
	}
	seen := map[uint64]int{}
	for _, o := range m.sink.outcomes {
		seen[o.Index]++
	}
	for index := uint64(1); index <= m.next; index++ {
		require.Equal(m.t, 1, seen[index], "outcomes of task %d", index)
		require.LessOrEqual(m.t, m.begun[index], m.allowed[index], "runs of task %d", index)
	}
	tasks, bytes, _ := m.pool.Load()
	require.Zero(m.t, tasks)
	require.Zero(m.t, bytes)
	require.Empty(m.t, m.pool.cancelled)
	require.Empty(m.t, m.pool.delayed)
	require.Zero(m.t, m.pool.ahead)
}

// staff starts the workers that the pool has asked for since, as Python does.
func (m *controlModel) staff() {
	m.wanted += m.sink.summons
	m.sink.summons = 0
	for ; m.wanted > 0; m.wanted-- {
		if len(m.pool.workers) < m.size {
			m.live[m.worker().boot()] = 0
		}
	}
}

func (m *controlModel) act(more bool) {
	switch action := m.rng.IntN(20); {
	case action < 5 && more:
		o := Options{Retries: m.rng.IntN(3), RetryOn: RetryOn(m.rng.IntN(8)),
			Backoff: time.Duration(m.rng.IntN(2)) * time.Second}
		if m.rng.IntN(3) == 0 {
			o.Timeout = 2 * time.Second
		}
		index := m.ask(o)
		m.allowed[index] = 1 + o.Retries
	case action < 7:
		m.advance(time.Duration(m.rng.IntN(3000)) * time.Millisecond)
	case action == 7 && m.next > 0:
		m.cancel(1+m.rng.Uint64N(m.next), m.rng.IntN(2) == 0)
	case action == 8 && more:
		m.size = 1 + m.rng.IntN(4)
		m.pool.Resize(m.size)
		m.wanted = m.size
	default:
		m.work()
	}
}

func (m *controlModel) cancel(index uint64, terminate bool) {
	settled := 0
	for _, o := range m.sink.outcomes {
		if o.Index == index {
			settled++
		}
	}
	if settled == 0 && m.pool.Cancel(index, 1, terminate) == 0 {
		m.cancelled[index] = true
	}
}

// work lets one worker do the next thing of its life.
func (m *controlModel) work() {
	for w, task := range m.live {
		ending := w.stopped || len(w.signals) > 0
		switch {
		case ending || m.rng.IntN(25) == 0:
			delete(m.live, w)
			if w.die(ExitStatus{Code: -9, Known: true}).Replace {
				m.wanted++
			}
		case task != 0:
			w.memory = m.rng.Uint64N(220)
			status := Status(m.rng.IntN(2))
			m.live[w] = 0
			err := m.pool.Settle(w.id, task, &Outcome{Status: status})
			if err != nil {
				require.ErrorIs(m.t, err, ErrDropped)
			}
		case len(w.unread) > 0:
			id := w.begin()
			index := m.indexOf(w, id)
			require.False(m.t, m.cancelled[index], "task %d was cancelled", index)
			m.begun[index]++
			m.live[w] = id
		}
		return
	}
}

func (m *controlModel) indexOf(w *fakeWorker, id TaskID) uint64 {
	for _, t := range m.pool.workers[w.id].leases {
		if t.ID == id {
			return t.Index
		}
	}
	m.t.Fatalf("worker %d begins task %d, which it does not hold", w.id, id)
	return 0
}
