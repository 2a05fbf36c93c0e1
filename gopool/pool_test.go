// SPDX-License-Identifier: MIT

package gopool

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A queued task starts on an idle worker within the call that brings them together.
func TestTaskStartsAtOnce(t *testing.T) {
	b := newBench(t, Config{})
	w := b.worker().boot()
	b.submit(1)
	require.Len(t, w.unread, 1, "submitting to an idle worker grants")
	b.submit(1)
	require.Len(t, w.unread, 1, "a busy worker gets no second task")
	w.finish(w.begin())
	require.Len(t, w.unread, 1, "settling grants the next task")
	late := b.worker()
	b.submit(1)
	late.boot()
	require.Len(t, late.unread, 1, "becoming ready grants a waiting task")
}

// Tasks begin in the order of submission, and outcomes are delivered as they come.
func TestOrder(t *testing.T) {
	b := newBench(t, Config{})
	b.submit(4)
	first, second := b.worker().boot(), b.worker().boot()
	one, two := first.begin(), second.begin()
	second.finish(two)
	first.finish(one)
	second.finish(second.begin())
	first.finish(first.begin())
	assert.Equal(t, []uint64{1, 0, 2, 3}, b.sink.indices())
}

// Tasks that come together are tasks like any other: those that find idle workers start at once, in
// order, the rest is queued; each is lost, or finished, alone.
func TestSubmitAll(t *testing.T) {
	b := newBench(t, Config{})
	first, second := b.worker().boot(), b.worker().boot()
	batch := func(from, n uint64) []Task {
		tasks := make([]Task, n)
		for i := range tasks {
			tasks[i] = Task{Job: 7, Index: from + uint64(i), Payload: []byte("xyz"), Region: NoRegion}
		}
		return tasks
	}
	load, err := b.pool.SubmitAll(batch(0, 3))
	require.NoError(t, err)
	assert.Equal(t, uint64(9), load)
	load, err = b.pool.SubmitAll(batch(3, 2))
	require.NoError(t, err)
	assert.Equal(t, uint64(15), load)
	require.Len(t, first.unread, 1)
	require.Len(t, second.unread, 1)
	assert.Less(t, first.unread[0], second.unread[0], "the worker that waits longest comes first")
	assert.Equal(t, 3, b.pool.Queued())

	second.finish(second.begin())
	first.begin()
	first.die(ExitStatus{Code: -9, Known: true})
	for range 3 {
		second.finish(second.begin())
	}
	assert.Equal(t, []uint64{1, 0, 2, 3, 4}, b.sink.indices())
	assert.Equal(t, StatusLost, b.sink.outcomes[1].Status)
	tasks, bytes, _ := b.pool.Load()
	assert.Zero(t, tasks)
	assert.Zero(t, bytes)
}

// A pool that takes nothing any more takes none of them.
func TestSubmitAllRefused(t *testing.T) {
	for want, end := range map[error]func(*Pool){
		ErrPoolClosed: (*Pool).Close, ErrPoolTerminated: (*Pool).Terminate,
	} {
		b := newBench(t, Config{})
		b.worker().boot()
		end(b.pool)
		_, err := b.pool.SubmitAll(make([]Task, 2))
		require.ErrorIs(t, err, want)
		tasks, _, _ := b.pool.Load()
		assert.Zero(t, tasks)
	}
}

// A worker that dies in a task fails that task alone; what it had not begun runs elsewhere.
func TestDeathFailsOneTask(t *testing.T) {
	b := newBench(t, Config{})
	w := b.worker().boot()
	b.submit(3)
	w.begin()
	v := w.die(ExitStatus{Code: -9, Known: true})
	require.Equal(t, Verdict{Replace: true}, v)
	require.Len(t, b.sink.outcomes, 1)
	o := b.sink.outcomes[0]
	assert.Equal(t, StatusLost, o.Status)
	assert.Equal(t, ExitStatus{Code: -9, Known: true}, o.Failure.Exit)
	assert.True(t, o.Failure.Started)
	next := b.worker().boot()
	next.finish(next.begin())
	next.finish(next.begin())
	assert.Equal(t, []uint64{0, 1, 2}, b.sink.indices())
}

// A task that was sent but not read is not charged with its worker's death.
func TestUnreadTaskRunsElsewhere(t *testing.T) {
	b := newBench(t, Config{})
	b.submit(2)
	w := b.worker().boot()
	w.die(ExitStatus{Code: 1, Known: true})
	require.Empty(t, b.sink.outcomes)
	next := b.worker().boot()
	next.finish(next.begin())
	next.finish(next.begin())
	assert.Equal(t, []uint64{0, 1}, b.sink.indices(), "the older task first")
}

// A worker that can't be reached is ended, and its task goes to another.
func TestUnreachableWorker(t *testing.T) {
	b := newBench(t, Config{})
	w := b.worker().boot()
	w.refuse = errGone
	b.submit(1)
	assert.Equal(t, []string{"KILL"}, w.signals)
	b.worker().boot()
	w.die(ExitStatus{Code: -9, Known: true})
	assert.Empty(t, b.sink.outcomes, "nothing was lost")
}

// A task that can't be sent fails alone; the worker takes the next one.
func TestUnsendableTask(t *testing.T) {
	b := newBench(t, Config{})
	w := b.worker().boot()
	_, err := b.pool.Submit(&Task{Mode: unsendable, Region: NoRegion})
	require.NoError(t, err)
	b.submit(1)
	w.finish(w.begin())
	require.Len(t, b.sink.outcomes, 2)
	assert.Equal(t, StatusRefused, b.sink.outcomes[0].Status)
	assert.Equal(t, StatusValue, b.sink.outcomes[1].Status)
	assert.Empty(t, w.signals)
}

// An outcome of a task that the worker does not hold is refused, whether it never held it or has
// settled it before.
func TestForeignOutcome(t *testing.T) {
	b := newBench(t, Config{})
	b.submit(2)
	w, other := b.worker().boot(), b.worker().boot()
	id := w.begin()
	var lease *LeaseError
	require.ErrorAs(t, b.pool.Settle(other.id, id, &Outcome{}), &lease)
	w.finish(id)
	require.ErrorAs(t, b.pool.Settle(w.id, id, &Outcome{}), &lease)
	assert.Equal(t, []uint64{0}, b.sink.indices())
}

// After its last task a worker gets no other, and is replaced when it has gone.
func TestMaxTasks(t *testing.T) {
	b := newBench(t, Config{MaxTasks: 2})
	b.submit(3)
	w := b.worker().boot()
	w.finish(w.begin())
	w.finish(w.begin())
	require.Empty(t, w.unread)
	assert.Equal(t, Verdict{Replace: true}, w.die(ExitStatus{Known: true}))
	assert.Zero(t, b.pool.Stats().Crashes)
}

// Close lets all tasks finish, then stops the workers, then ends.
func TestClose(t *testing.T) {
	b := newBench(t, Config{})
	w := b.worker().boot()
	b.submit(1)
	b.pool.Close()
	_, err := b.pool.Submit(&Task{Region: NoRegion})
	require.ErrorIs(t, err, ErrPoolClosed)
	require.False(t, w.stopped)
	w.finish(w.begin())
	require.True(t, w.stopped)
	require.Equal(t, 1, b.sink.drained)
	assert.Equal(t, Verdict{}, w.die(ExitStatus{Known: true}))
	assert.Equal(t, 1, b.sink.ended)
}

// A worker that is lost while a closed pool still has tasks is replaced.
func TestReplaceWhileClosing(t *testing.T) {
	b := newBench(t, Config{})
	w := b.worker().boot()
	b.submit(2)
	b.pool.Close()
	w.begin()
	assert.True(t, w.die(ExitStatus{Code: 1, Known: true}).Replace)
	next := b.worker().boot()
	next.finish(next.begin())
	next.die(ExitStatus{Known: true})
	assert.Equal(t, 1, b.sink.ended)
}

// Terminate stops idle workers politely, interrupts busy and booting ones, and delivers nothing.
func TestTerminate(t *testing.T) {
	b := newBench(t, Config{})
	busy, idle, booting := b.worker().boot(), b.worker(), b.worker()
	b.submit(1)
	idle.boot()
	id := busy.begin()
	b.pool.Terminate()
	assert.Equal(t, []string{"TERM"}, busy.signals)
	assert.True(t, idle.stopped)
	assert.Empty(t, idle.signals)
	assert.Equal(t, []string{"TERM"}, booting.signals)
	require.ErrorIs(t, b.pool.Settle(busy.id, id, &Outcome{}), ErrDropped)
	require.NoError(t, b.pool.Hello(booting.id), "what comes late is no error")
	b.pool.KillSurvivors()
	assert.Equal(t, []string{"TERM", "KILL"}, busy.signals)
	for _, w := range []*fakeWorker{busy, idle, booting} {
		w.die(ExitStatus{Code: -15, Known: true})
	}
	assert.Empty(t, b.sink.outcomes)
	assert.Equal(t, 1, b.sink.ended)
	_, err := b.pool.Submit(&Task{Region: NoRegion})
	require.ErrorIs(t, err, ErrPoolTerminated)
}

// Workers that end before they are ready, three in a row, break the pool; every caller is told.
func TestBrokenPool(t *testing.T) {
	b := newBench(t, Config{})
	b.submit(2)
	var pauses []time.Duration
	for range maxFailedStarts {
		w := b.worker()
		require.NoError(t, b.pool.Hello(w.id))
		require.NoError(t, b.pool.InitFailed(w.id, "Traceback"))
		pauses = append(pauses, w.die(ExitStatus{Code: 1, Known: true}).After)
	}
	assert.Equal(t, []time.Duration{firstBackoff, 2 * firstBackoff, 0}, pauses)
	b.submit(1)
	_, err := b.pool.SubmitAll([]Task{{Region: NoRegion}, {Region: NoRegion}})
	require.NoError(t, err)
	require.Len(t, b.sink.outcomes, 5)
	for _, o := range b.sink.outcomes {
		assert.Equal(t, StatusBroken, o.Status)
		assert.Equal(t, "Traceback", o.Failure.Text)
	}
	b.pool.Close()
	assert.Equal(t, 1, b.sink.ended)
}

// A failed start between good ones breaks nothing, however often.
func TestFailedStartsWithGoodWorkers(t *testing.T) {
	b := newBench(t, Config{})
	b.worker().boot()
	for range 5 * maxFailedStarts {
		require.True(t, b.worker().die(ExitStatus{Code: 1, Known: true}).Replace)
	}
	b.submit(1)
	assert.Empty(t, b.sink.outcomes)
}

// Workers that come up and die idle again and again are replaced ever more slowly; the pool is not
// broken, and the first task that is done ends the suspicion.
func TestIdleDeaths(t *testing.T) {
	b := newBench(t, Config{})
	var pauses []time.Duration
	for range 4 {
		pauses = append(pauses, b.worker().boot().die(ExitStatus{Code: 1, Known: true}).After)
	}
	assert.Equal(t, []time.Duration{0, firstBackoff, 2 * firstBackoff, 4 * firstBackoff}, pauses)
	b.submit(1)
	w := b.worker().boot()
	w.finish(w.begin())
	assert.Zero(t, w.die(ExitStatus{Code: 1, Known: true}).After)
}

// A link that is full for its first task refuses that task instead of killing worker after worker.
func TestFullForTheFirstTask(t *testing.T) {
	b := newBench(t, Config{})
	w := b.worker().boot()
	w.refuse = ErrLinkFull
	b.submit(1)
	require.Len(t, b.sink.outcomes, 1)
	assert.Equal(t, StatusRefused, b.sink.outcomes[0].Status)
	assert.Empty(t, w.signals)
	w.refuse = nil
	b.submit(1)
	assert.Len(t, w.unread, 1)
}

// An unknown worker is an error everywhere, never a crash.
func TestUnknownWorker(t *testing.T) {
	b := newBench(t, Config{})
	_, err := b.pool.Reaped(9, ExitStatus{})
	for _, err := range []error{err, b.pool.Hello(9), b.pool.Ready(9), b.pool.InitFailed(9, ""),
		b.pool.Settle(9, 1, &Outcome{}), b.pool.Fail(9, ""), b.pool.Exited(9)} {
		require.ErrorIs(t, err, ErrUnknownWorker)
	}
}

// Every move between states that the table does not list is refused.
func TestTransitions(t *testing.T) {
	for from := Starting; from < numWorkerStates; from++ {
		for to := Starting; to < numWorkerStates; to++ {
			w := &worker{state: from}
			err := w.moveTo(to)
			if from.canMoveTo(to) {
				require.NoError(t, err)
				require.Equal(t, to, w.state)
				continue
			}
			var transition *TransitionError
			require.ErrorAs(t, err, &transition, "%s to %s", from, to)
			require.Equal(t, from, w.state)
		}
	}
}

// A worker that says Ready twice, or before Hello, breaks the protocol.
func TestOutOfTurn(t *testing.T) {
	b := newBench(t, Config{})
	w := b.worker()
	var transition *TransitionError
	require.ErrorAs(t, b.pool.Ready(w.id), &transition)
	w.boot()
	require.ErrorAs(t, b.pool.Ready(w.id), &transition)
	require.ErrorAs(t, b.pool.Hello(w.id), &transition)
}

// Whatever happens in whatever order, every task is settled exactly once. The seed is printed by
// the failing assertion.
func TestRandomLives(t *testing.T) {
	for seed := range uint64(200) {
		randomLife(t, seed)
	}
}

func randomLife(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 1))
	b := newBench(t, Config{MaxTasks: rng.IntN(3) * 4, SendAhead: SendAhead(rng.IntN(3))})
	running := map[*fakeWorker][]TaskID{}
	start := func() { w := b.worker().boot(); running[w] = nil }
	for range 1 + rng.IntN(4) {
		start()
	}
	for step := 0; step < 300 || len(b.sink.outcomes) < int(b.next); step++ {
		if step < 200 && rng.IntN(3) == 0 {
			b.submit(rng.IntN(4))
		}
		for w, begun := range running {
			switch {
			case len(begun) > 0 && rng.IntN(10) == 0, len(w.unread) > 0 && rng.IntN(20) == 0:
				delete(running, w)
				w.die(ExitStatus{Code: -9, Known: rng.IntN(2) == 0})
				start()
			case len(begun) > 0:
				running[w] = nil
				w.finish(begun[0])
				if b.pool.workers[w.id].state == Retiring {
					delete(running, w)
					w.die(ExitStatus{Known: true})
					start()
				}
			case len(w.unread) > 0:
				running[w] = []TaskID{w.begin()}
			}
			break
		}
		require.Less(t, step, 20_000, "seed %d: tasks are stuck", seed)
	}
	seen := map[uint64]int{}
	for _, o := range b.sink.outcomes {
		seen[o.Index]++
	}
	for i := range b.next {
		require.Equal(t, 1, seen[i], "seed %d: outcomes of task %d", seed, i)
	}
	tasks, bytes, _ := b.pool.Load()
	require.Zero(t, tasks)
	require.Zero(t, bytes)
}

// A task that its worker had read and not begun, by the worker's own note, is not lost with it.
func TestNoteOfTheBegunTask(t *testing.T) {
	for _, begun := range []bool{false, true} {
		b := newBench(t, Config{})
		w := b.worker().boot()
		b.submit(2)
		id := w.begin()
		note := TaskID(0)
		if begun {
			note = id
		}
		require.NoError(t, b.pool.Exited(w.id))
		require.NoError(t, b.pool.Began(w.id, note))
		_, err := b.pool.Reaped(w.id, ExitStatus{Code: -9, Known: true})
		require.NoError(t, err)
		next := b.worker().boot()
		for range 2 {
			if len(next.unread) > 0 {
				next.finish(next.begin())
			}
		}
		assert.Equal(t, []uint64{0, 1}, b.sink.indices())
		assert.Equal(t, begun, b.sink.outcomes[0].Status == StatusLost)
	}
}

// A task whose mere reading ends one worker after the other is given up, not passed on for ever.
func TestUnbegunForEver(t *testing.T) {
	b := newBench(t, Config{})
	b.submit(1)
	for range maxUnbegun + 1 {
		require.Empty(t, b.sink.outcomes)
		w := b.worker().boot()
		w.begin()
		require.NoError(t, b.pool.Exited(w.id))
		require.NoError(t, b.pool.Began(w.id, 0))
		_, err := b.pool.Reaped(w.id, ExitStatus{Code: 1, Known: true})
		require.NoError(t, err)
	}
	require.Len(t, b.sink.outcomes, 1)
	assert.Equal(t, StatusLost, b.sink.outcomes[0].Status)
}
