// SPDX-License-Identifier: MIT

package bridge_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"gopool/bridge"
	"gopool/gopool"
)

// scene is the stage of most tests here: a worker that holds a task until it is released, and a
// second one, the actor, that did one task and was then sent the tasks of the test at once.
type scene struct {
	*rig
	other *worker
	held  uint64 // the other's task
	actor *worker
	tasks []uint64
}

// newScene gives the actor tasks with these payloads, and returns when it holds all.
func newScene(t *testing.T, payloads ...string) *scene {
	t.Helper()
	return sceneWith(t, "ok", payloads...)
}

// sceneWith is newScene with an actor that starts with a script.
func sceneWith(t *testing.T, script string, payloads ...string) *scene {
	t.Helper()
	s := &scene{rig: newRig(t)}
	s.other = s.start("ok")
	s.held = s.submit("hold")
	s.other.hears("holding")
	s.actor = s.start(script)
	// Tasks are sent ahead when the worker settles one.
	first := s.submit("hold")
	s.actor.hears("holding")
	for _, payload := range payloads {
		s.tasks = append(s.tasks, s.submit(payload))
	}
	s.actor.release()
	s.answers(s.actor, first)
	return s
}

// TestOffences expects a worker that breaks the protocol within a task to be killed and that task
// to fail with the reason; what it had not begun runs elsewhere and the other worker is unharmed.
func TestOffences(t *testing.T) {
	reasons := map[string]string{
		"shut its writing half down":   "closed its end",
		"shut both halves down":        "closed its end|broken pipe", // while it is sent more
		"empty message":                "empty message",
		"torn frame":                   "length mismatch",
		"cut header":                   "frame shorter than its header",
		"oversize length":              "length mismatch",
		"large message":                "message larger than a frame",
		"unknown kind":                 "unknown kind",
		"parent's kind":                "unknown kind",
		"garbage":                      "not an array",
		"garbage, then done":           "not an array",
		"another done of the last":     "does not hold",
		"done of a stranger's":         "task 4711, which it does not hold",
		"region and a stranger's task": "task 4711, which it does not hold",
		"hello again":                  "can't go from busy to initializing",
		"hello of version 9":           "version 9",
		"ready again":                  "said a second time",
		"region without descriptor":    "region without descriptor",
		"descriptor without region":    "descriptor without region",
		"two descriptors":              "2 descriptors",
	}
	require.Equal(t, sortedNames(offences), sortedNames(reasons))
	for _, offence := range sortedNames(offences) {
		t.Run(offence, func(t *testing.T) {
			s := newScene(t, offence, "a", "b")
			verdict := s.actor.reap(-int(unix.SIGKILL))
			assert.True(t, verdict.Replace)
			assert.Zero(t, verdict.After)
			text := s.lost(s.actor, s.tasks[0], -int(unix.SIGKILL))
			assert.Regexp(t, reasons[offence], text)
			s.other.release()
			s.answers(s.other, s.held, s.tasks[1], s.tasks[2])
			assert.Equal(t, gopool.Stats{Workers: 2, Values: 4, Lost: 1, Crashes: 1},
				s.wires.Pool.Stats())
			s.finish(s.other)
		})
	}
}

// TestDeaths expects the end of a worker to fail the task that it had begun and no other, and what
// it had sent before to count.
func TestDeaths(t *testing.T) {
	tests := []struct {
		payload string
		code    int
		lost    bool
	}{
		{"hold, exit", 3, true},
		{"hold, die", -int(unix.SIGKILL), true},
		{"answer, then exit", 5, false},
		{"region, then exit", 5, false},
	}
	for _, tt := range tests {
		t.Run(tt.payload, func(t *testing.T) {
			s := newScene(t, tt.payload, "a", "b")
			if tt.lost {
				s.actor.hears("holding")
				s.actor.release()
			}
			if !tt.lost {
				got := s.outcome() // before the worker is reaped
				assert.Equal(t, s.tasks[0], got.index)
				assert.Equal(t, gopool.StatusValue, got.status)
				if got.region >= 0 {
					text, err := readRegion(got.region, got.regionSize)
					assert.NoError(t, err)
					assert.Equal(t, regionText, text)
				}
				assert.Equal(t, strings.HasPrefix(tt.payload, "region"), got.region >= 0)
			}
			assert.True(t, s.actor.reap(tt.code).Replace)
			if tt.lost {
				assert.Empty(t, s.lost(s.actor, s.tasks[0], tt.code))
			}
			s.other.release()
			s.answers(s.other, s.held, s.tasks[1], s.tasks[2])
			s.finish(s.other)
		})
	}
}

// TestDeathIdle expects the end of an idle worker to fail no task and to be made good.
func TestDeathIdle(t *testing.T) {
	r := newRig(t)
	w := r.start("exit idle")
	w.hears("idle")
	w.release()
	verdict := w.reap(6)
	assert.Equal(t, gopool.Verdict{Replace: true}, verdict)
	assert.Equal(t, gopool.Stats{Workers: 1, Crashes: 1}, r.wires.Pool.Stats())
	index := r.submit("a")
	successor := r.start("ok")
	r.answers(successor, index)
	r.finish(successor)
}

// TestFailedStarts expects workers that can't come up to break the pool at the third, with the
// reason, and not to be tried for ever.
func TestFailedStarts(t *testing.T) {
	tests := []struct {
		script string
		code   int
		reason string
	}{
		{"exit at once", 7, ""},
		{"version 9", -int(unix.SIGKILL), "version 9, version 1 is needed"},
		{"ready before hello", -int(unix.SIGKILL), "can't go from starting to idle"},
		{"task's done first", -int(unix.SIGKILL), "does not hold"},
		{"hello twice", -int(unix.SIGKILL), "can't go from initializing to initializing"},
		{"initializer fails", 1, "the traceback"},
	}
	for _, tt := range tests {
		fails := func(t *testing.T, start func(*rig) *worker) {
			r := newRig(t)
			index := r.submit("a")
			for i := range 3 {
				w := start(r)
				verdict := w.reap(tt.code)
				require.Equal(t, i < 2, verdict.Replace)
				require.Equal(t, i < 2, verdict.After > 0, "a pause grows between failed starts")
			}
			got := r.outcome()
			assert.Equal(t, index, got.index)
			assert.Equal(t, gopool.StatusBroken, got.status)
			_, _, _, text := got.failure(t)
			assert.Contains(t, text, tt.reason)
			r.finish()
		}
		t.Run(tt.script, func(t *testing.T) {
			fails(t, func(r *rig) *worker { return r.start(tt.script) })
		})
		t.Run(tt.script+", before it is listened to", func(t *testing.T) {
			fails(t, func(r *rig) *worker { return r.startLate(tt.script) })
		})
	}
}

// TestReadyBeforeAttached expects a worker that has booted before anybody listens to be given a task
// within Attach, or within Submit where that comes later: the poller has no part in it.
func TestReadyBeforeAttached(t *testing.T) {
	for _, waits := range []bool{true, false} {
		t.Run(fmt.Sprintf("task waits %t", waits), func(t *testing.T) {
			r := newRig(t)
			w := r.launch("exit idle")
			w.hears("idle")
			free := r.occupyPoller()
			if waits {
				r.submit("a")
			}
			w.id = r.board.Attach(r.wires, w.cmd.Process.Pid, w.ends)
			if !waits {
				r.submit("a")
			}
			assert.Zero(t, r.wires.Pool.Queued())
			free()
			w.release()
			assert.True(t, w.reap(6).Replace)
			r.wires.Pool.Terminate()
			assert.Equal(t, -1, r.ended())
		})
	}
}

// TestReadyTwiceIdle expects a second Ready of an idle worker to end it, not to put it into the
// list of idle workers twice.
func TestReadyTwiceIdle(t *testing.T) {
	r := newRig(t)
	w := r.start("ready twice, idle")
	w.hears("ready")
	w.release()
	assert.True(t, w.reap(-int(unix.SIGKILL)).Replace)
	assert.Equal(t, gopool.Stats{Workers: 1, Crashes: 1}, r.wires.Pool.Stats())
	r.finish()
}

// TestUnreachable expects a worker that can't be sent a task to be ended, and the task to run
// elsewhere.
func TestUnreachable(t *testing.T) {
	r := newRig(t)
	w := r.start("exit idle")
	w.hears("idle")
	require.NoError(t, unix.Shutdown(w.ends.Peer, unix.SHUT_RD))
	index := r.submit("a")
	w.reap(-int(unix.SIGKILL))
	successor := r.start("ok")
	r.answers(successor, index)
	r.finish(successor)
}

// TestNeverReads expects the tasks of a worker that does not read to run elsewhere, at the latest
// when it ends, and none of them to be lost.
func TestNeverReads(t *testing.T) {
	s := newScene(t, "answer, hold, exit", "a", "b", "c")
	s.answers(s.actor, s.tasks[0])
	s.actor.hears("holding")
	s.other.release()
	s.answers(s.other, s.held)
	s.actor.release()
	s.actor.reap(3)
	s.answers(s.other, s.tasks[1:]...)
	s.finish(s.other)
}

// TestWorkerReturns expects a worker whose tasks were all taken back before it read one to be given
// tasks again: it would be lost to the pool otherwise, though it lives.
func TestWorkerReturns(t *testing.T) {
	s := newScene(t, "answer, hold", "a", "b")
	s.answers(s.actor, s.tasks[0])
	s.actor.hears("holding")
	s.other.release()
	s.answers(s.other, s.held)
	s.actor.release()
	settled := []uint64{s.outcome().index, s.outcome().index}
	require.ElementsMatch(t, s.tasks[1:], settled)

	// Two tasks that hold need two workers: neither is released before both are held.
	both := []uint64{s.submit("hold"), s.submit("hold")}
	s.other.hears("holding")
	s.actor.hears("holding")
	s.actor.release()
	s.other.release()
	settled = []uint64{s.outcome().index, s.outcome().index}
	assert.ElementsMatch(t, both, settled)
	s.finish(s.other, s.actor)
}

// TestFullSocket expects tasks that don't fit into a worker's socket to stay with the pool: the
// worker is not ended, and no task is lost.
func TestFullSocket(t *testing.T) {
	r := newRig(t)
	w := r.start("ok")
	first := r.submit("hold")
	w.hears("holding")
	large := strings.Repeat("x", bridge.MaxInline)
	var indices []uint64
	for range 10 {
		indices = append(indices, r.submit(large))
	}
	assert.Equal(t, 10, r.wires.Pool.Queued())
	w.release()
	r.answers(w, first)
	for _, index := range indices {
		got := r.outcome()
		assert.Equal(t, index, got.index)
	}
	r.finish(w)
}

// TestTakeBack expects tasks that a dead or slow worker had not read to run elsewhere once, in
// their order, whether their payload lies in the frame or in a region, and no descriptor to leak.
func TestTakeBack(t *testing.T) {
	tests := []struct {
		name string
		dies bool
	}{{"from a worker that died", true}, {"from a worker that is slow", false}}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			deed := "hold"
			if tt.dies {
				deed = "hold, exit"
			}
			r := newRig(t)
			other := r.start("ok")
			held := r.submit("hold")
			other.hears("holding")
			actor := r.start("ok")
			first := r.submit("hold")
			actor.hears("holding")
			begun := r.submit(deed)
			inline, region := r.submit("inline"), r.submitRegion("first region")
			last := r.submitRegion("last region")
			actor.release()
			r.answers(actor, first)
			actor.hears("holding")
			require.Zero(t, r.wires.Pool.Queued())
			if tt.dies {
				actor.release()
				actor.reap(3)
				r.lost(actor, begun, 3)
			}
			other.release()
			for _, index := range []uint64{held, inline, region, last} {
				r.answers(other, index)
			}
			if tt.dies {
				r.finish(other)
				return
			}
			actor.release()
			r.answers(actor, begun)
			r.finish(other, actor)
		})
	}
}

// TestTakeBackWithoutDescriptors expects a region task to be taken back where this process may
// open no descriptor any more: nobody would ever run it.
func TestTakeBackWithoutDescriptors(t *testing.T) {
	r := newRig(t)
	other := r.start("ok")
	held := r.submit("hold")
	other.hears("holding")
	actor := r.start("ok")
	first := r.submit("hold")
	actor.hears("holding")
	begun, unread := r.submit("hold, exit"), r.submitRegion("unread")
	actor.release()
	r.answers(actor, first)
	actor.hears("holding")

	var limit unix.Rlimit
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	allowed := limit
	limit.Cur = 1 // what is open stays open
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit))
	actor.release()
	err := awaitReadable(r.events)
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &allowed))
	require.NoError(t, err)

	actor.reap(3)
	r.lost(actor, begun, 3)
	other.release()
	r.answers(other, held, unread)
	r.finish(other)
}

// TestDefinitions expects a function's definition to travel to each worker with its tasks until
// one of them was settled, whatever was taken back meanwhile, and never after that.
func TestDefinitions(t *testing.T) {
	r := newRig(t)
	f := r.wires.Functions.Add([]byte("def f"))
	g := r.wires.Functions.Add([]byte("def g"))
	call := func(function uint32, payload string) uint64 {
		return r.submitTask(&gopool.Task{Function: function, Payload: []byte(payload),
			Region: gopool.NoRegion})
	}
	other := r.start("ok")
	held := call(f, "hold")
	other.hears("holding")
	actor := r.start("ok")
	first := call(f, "hold")
	actor.hears("holding")
	second, third := call(f, "hold"), call(g, "third")
	fourth, fifth := call(g, "fourth"), call(0, "fifth")
	actor.release()
	assert.Equal(t, "def f", r.answers(actor, first)[first].Definition)
	actor.hears("holding")

	// The other takes over what the actor, which holds its second task, has not read.
	other.release()
	replies := r.answers(other, held, third, fourth, fifth)
	assert.Equal(t, "def f", replies[held].Definition)
	assert.Equal(t, "def g", replies[third].Definition)
	// The fourth has it as well if it was sent before the third was settled.
	assert.Contains(t, []string{"", "def g"}, replies[fourth].Definition)
	assert.Empty(t, replies[fifth].Definition)

	again := call(f, "hold")
	other.hears("holding")
	actor.release()
	assert.Empty(t, r.answers(actor, second)[second].Definition)
	sixth := call(g, "sixth")
	assert.Equal(t, "def g", r.answers(actor, sixth)[sixth].Definition)
	seventh := call(g, "seventh")
	assert.Empty(t, r.answers(actor, seventh)[seventh].Definition)
	other.release()
	assert.Empty(t, r.answers(other, again)[again].Definition)
	r.finish(other, actor)
}

// TestRegionResult expects a result in a region to arrive as a descriptor of its own.
func TestRegionResult(t *testing.T) {
	r := newRig(t)
	w := r.start("ok")
	index := r.submit("region")
	got := r.outcome()
	assert.Equal(t, index, got.index)
	require.GreaterOrEqual(t, got.region, 0)
	text, err := readRegion(got.region, got.regionSize)
	require.NoError(t, err)
	assert.Equal(t, regionText, text)
	r.finish(w)
}

// TestPausedWorkers expects workers to be read no more while too many results with a region were
// not collected, and all of them to arrive in the end.
func TestPausedWorkers(t *testing.T) {
	r := newRig(t)
	w := r.start("ok")
	for range bridge.MaxRegions {
		r.submit("region")
	}
	holds := []uint64{r.submit("hold"), r.submit("hold")}
	for range bridge.MaxRegions {
		r.submit("region")
	}
	w.hears("holding")
	for range 3 { // one turn may not be enough for all that was sent
		settle(t, r.board.Poller)
	}
	require.Equal(t, bridge.MaxRegions, r.wires.Pool.Stats().Values)
	w.release()
	w.hears("holding") // the answer to the first is sent
	settle(t, r.board.Poller)
	assert.Equal(t, bridge.MaxRegions, r.wires.Pool.Stats().Values)
	w.release()
	for i := range r.last {
		got := r.outcome()
		require.Equal(t, i, got.index)
		if !slices.Contains(holds, i) {
			require.NoError(t, unix.Close(got.region))
		}
	}
	r.finish(w)
}

// TestDeathWhilePaused expects what a worker had sent to be read though it was paused, and its
// successor, which may have the same descriptors, to be heard.
func TestDeathWhilePaused(t *testing.T) {
	r := newRig(t)
	w := r.start("ok")
	for range bridge.MaxRegions {
		r.submit("region")
	}
	r.submit("hold")
	r.submit("answer, then exit")
	w.hears("holding")
	for range 3 { // one turn may not be enough for all that was sent
		settle(t, r.board.Poller)
	}
	w.release()
	w.reap(5)
	successor := r.launch("ok")
	// The successor gets the numbers that its predecessor had, as after Python closed them.
	for _, fds := range [][2]int{{successor.ends.Socket, w.ends.Socket},
		{successor.ends.PIDFD, w.ends.PIDFD}} {
		require.NoError(t, unix.Dup3(fds[0], fds[1], unix.O_CLOEXEC))
	}
	ends := bridge.Endpoints{Socket: w.ends.Socket, Peer: successor.ends.Peer, PIDFD: w.ends.PIDFD,
		Lane: -1}
	successor.id = r.board.Attach(r.wires, successor.cmd.Process.Pid, ends)
	last := r.submit("a")
	for i := range last + 1 {
		got := r.outcome()
		require.Equal(t, i, got.index)
		require.Equal(t, gopool.StatusValue, got.status)
		if got.region >= 0 {
			require.NoError(t, unix.Close(got.region))
		}
	}
	r.finish(successor)
}

// TestTerminate expects unsettled tasks to be dropped without an outcome, a worker in a task to get
// SIGTERM, an idle one to be told to stop, and who ignores SIGTERM to be killed at last.
func TestTerminate(t *testing.T) {
	r := newRig(t)
	busy := r.start("ok")
	r.submit("hold")
	busy.hears("holding")
	stubborn := r.start("ignore SIGTERM")
	stubborn.hears("ignoring")
	never := r.submit("never read")
	idle := r.start("ok")
	last := r.submit("a")
	// On a slow machine the task that nobody reads goes to the worker that was started last.
	require.Contains(t, []uint64{never, last}, r.outcome().index)
	r.wires.Pool.Terminate()
	_, err := r.wires.Pool.Submit(&gopool.Task{Region: gopool.NoRegion})
	assert.ErrorIs(t, err, gopool.ErrPoolTerminated)
	terminated := -int(unix.SIGTERM)
	codes := map[int][]int{
		int(busy.id): {terminated},
		int(idle.id): {0, terminated}, // the other task may have gone to it
	}
	for range codes {
		id := r.ended()
		code := map[int]*worker{int(busy.id): busy, int(idle.id): idle}[id].wait()
		assert.Contains(t, codes[id], code)
		_, err := r.wires.Pool.Reaped(gopool.WorkerID(id), gopool.ExitStatus{Code: code, Known: true})
		require.NoError(t, err)
	}
	r.wires.Pool.KillSurvivors()
	r.end(map[*worker]int{stubborn: -int(unix.SIGKILL)})
}
