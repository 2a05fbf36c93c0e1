// SPDX-License-Identifier: MIT

package bridge_test

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"gopool/bridge"
	"gopool/gopool"
)

const rigRing = 4 * bridge.MaxFrame

// rig is a pool with what Python has of it: it starts and reaps workers, submits and collects.
type rig struct {
	*collector
	t      *testing.T
	board  *bridge.Board
	wires  *bridge.PoolWires
	events int
	last   uint64 // tasks submitted
}

// newRig makes a pool that sends as many tasks ahead as it may: a test that wants one at a time
// submits one at a time.
func newRig(t *testing.T) *rig {
	t.Helper()
	guardDescriptors(t)
	ringFD, err := unix.MemfdCreate("outcomes", unix.MFD_CLOEXEC)
	require.NoError(t, err)
	closing(t, ringFD)
	require.NoError(t, unix.Ftruncate(ringFD, rigRing))
	mem, err := bridge.MapShared(ringFD, rigRing)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, bridge.UnmapShared(mem)) })

	r := &rig{t: t, events: newEventFD(t)}
	wake := newEventFD(t)
	cfg := gopool.Config{SendAhead: gopool.AheadAlways}
	r.board, err = bridge.NewBoard()
	require.NoError(t, err)
	r.wires, err = r.board.OpenPool(cfg, ringFD, rigRing, wake, r.events)
	require.NoError(t, err)
	t.Cleanup(func() {
		assert.NoError(t, r.board.Poller.Close())
		assert.NoError(t, r.wires.Release())
	})
	r.collector = &collector{mem: mem, outcomes: r.wires, wake: wake}
	return r
}

// worker is a started worker as Python knows it.
type worker struct {
	r       *rig
	id      gopool.WorkerID
	cmd     *exec.Cmd
	ends    bridge.Endpoints
	control int
	reaped  bool
}

// start starts a worker with a script and attaches it.
func (r *rig) start(script string) *worker {
	r.t.Helper()
	w := r.launch(script)
	w.id = r.board.Attach(r.wires, w.cmd.Process.Pid, w.ends)
	return w
}

// startLate attaches a worker once it has said something or is gone.
func (r *rig) startLate(script string) *worker {
	r.t.Helper()
	w := r.launch(script)
	fds := []unix.PollFd{{Fd: int32(w.ends.Socket), Events: unix.POLLIN},
		{Fd: int32(w.ends.PIDFD), Events: unix.POLLIN}}
	_, err := unix.Poll(fds, -1)
	require.NoError(r.t, err)
	w.id = r.board.Attach(r.wires, w.cmd.Process.Pid, w.ends)
	return w
}

// occupyPoller keeps the poller's goroutine in a handler until the result is called.
func (r *rig) occupyPoller() (free func()) {
	r.t.Helper()
	entered, leave := make(chan struct{}), make(chan struct{})
	fd := newEventFD(r.t)
	var watch *bridge.Watch
	watch, err := r.board.Poller.Add(fd, func() {
		close(entered)
		<-leave
		watch.Remove()
	})
	require.NoError(r.t, err)
	_, err = unix.Write(fd, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	require.NoError(r.t, err)
	<-entered
	return func() { close(leave) }
}

// launch starts a worker's process.
func (r *rig) launch(script string) *worker {
	r.t.Helper()
	require.Contains(r.t, starts, script)
	link, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	require.NoError(r.t, err)
	control, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	require.NoError(r.t, err)
	w := &worker{r: r, control: control[0], ends: bridge.Endpoints{Lane: -1}}
	var lane []*os.File // childLane, childBell
	if strings.HasPrefix(script, "lane") {
		w.ends.Lane, err = bridge.NewLaneMemory()
		require.NoError(r.t, err)
		lane = []*os.File{duplicate(r.t, w.ends.Lane), duplicate(r.t, r.wake)}
	}
	w.ends.Socket = link[0]
	w.ends.Peer, err = unix.FcntlInt(uintptr(link[1]), unix.F_DUPFD_CLOEXEC, 0)
	require.NoError(r.t, err)

	w.cmd = exec.Command(os.Args[0])
	w.cmd.Env = append(os.Environ(), scriptVariable+"="+script,
		"GORACE=atexit_sleep_ms=0") // it would wait a second for reports at each exit
	w.cmd.Stderr = os.Stderr
	socketFile, controlFile := os.NewFile(uintptr(link[1]), "link"), os.NewFile(uintptr(control[1]),
		"control")
	w.cmd.ExtraFiles = append([]*os.File{socketFile, controlFile}, lane...) // from childSocket on
	require.NoError(r.t, w.cmd.Start())
	for _, file := range w.cmd.ExtraFiles {
		require.NoError(r.t, file.Close())
	}
	w.ends.PIDFD, err = unix.PidfdOpen(w.cmd.Process.Pid, 0)
	require.NoError(r.t, err)
	r.t.Cleanup(func() {
		if !w.reaped { // the test failed
			_ = w.cmd.Process.Kill()
			w.wait()
		}
		for _, fd := range []int{w.ends.Socket, w.ends.Peer, w.ends.PIDFD, w.control, w.ends.Lane} {
			if fd >= 0 {
				assert.NoError(r.t, unix.Close(fd))
			}
		}
	})
	return w
}

// duplicate is a file of its own for a descriptor.
func duplicate(t *testing.T, fd int) *os.File {
	t.Helper()
	fd, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	require.NoError(t, err)
	return os.NewFile(uintptr(fd), "duplicate")
}

// wait reaps the process and returns its exit code in Python's convention.
func (w *worker) wait() int {
	w.reaped = true
	_ = w.cmd.Wait() // what it says is in ProcessState
	status := w.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		return -int(status.Signal())
	}
	return status.ExitStatus()
}

// hears waits for the worker to say that it has come to a place.
func (w *worker) hears(word string) {
	w.r.t.Helper()
	require.NoError(w.r.t, awaitReadable(w.control))
	buf := make([]byte, 64)
	n, err := unix.Read(w.control, buf)
	require.NoError(w.r.t, err)
	require.Equal(w.r.t, word, string(buf[:n]), "worker %d ended, or is elsewhere", w.id)
}

// release lets the worker go on.
func (w *worker) release() {
	w.r.t.Helper()
	_, err := unix.Write(w.control, []byte{1})
	require.NoError(w.r.t, err)
}

// ended waits for the number of the next worker whose end is reported; -1: none will be.
func (r *rig) ended() int {
	r.t.Helper()
	for {
		if id := r.wires.Events.Next(); id != 0 {
			return id
		}
		require.NoError(r.t, awaitReadable(r.events))
		rings(r.t, r.events)
	}
}

// reap waits for the worker's end to be reported, and reports its exit code.
func (w *worker) reap(want int) gopool.Verdict {
	w.r.t.Helper()
	require.Equal(w.r.t, int(w.id), w.r.ended())
	code := w.wait()
	require.Equal(w.r.t, want, code)
	return w.r.reaped(w, code)
}

// reaped does what Python does once it has reaped a worker.
func (r *rig) reaped(w *worker, code int) gopool.Verdict {
	r.t.Helper()
	if w.ends.Lane >= 0 {
		var note [8]byte
		_, err := unix.Pread(w.ends.Lane, note[:], 0)
		require.NoError(r.t, err)
		begun := gopool.TaskID(binary.LittleEndian.Uint64(note[:]))
		require.NoError(r.t, r.wires.Pool.Began(w.id, begun))
	}
	verdict, err := r.wires.Reaped(w.id, gopool.ExitStatus{Code: code, Known: true})
	require.NoError(r.t, err)
	return verdict
}

// submit queues a task and returns its index.
func (r *rig) submit(payload string) uint64 {
	r.t.Helper()
	return r.submitTask(&gopool.Task{Payload: []byte(payload), Region: gopool.NoRegion})
}

// submitRegion queues a task whose payload lies in a region.
func (r *rig) submitRegion(payload string) uint64 {
	r.t.Helper()
	fd, err := newRegion(payload)
	require.NoError(r.t, err)
	return r.submitTask(&gopool.Task{Region: gopool.Region{FD: fd, Size: uint64(len(payload))}})
}

func (r *rig) submitTask(task *gopool.Task) uint64 {
	r.t.Helper()
	task.Job, task.Index = 1, r.last
	r.last++
	_, err := r.wires.Submit(task)
	require.NoError(r.t, err)
	return task.Index
}

// outcome waits for the next outcome and frees the region of its task.
func (r *rig) outcome() record {
	r.t.Helper()
	got, err := r.wait()
	require.NoError(r.t, err)
	if got.taskRegion >= 0 {
		require.NoError(r.t, unix.Close(got.taskRegion))
	}
	return got
}

// answers waits for the outcomes of tasks, in any order, each the answer of one worker.
func (r *rig) answers(by *worker, indices ...uint64) map[uint64]reply {
	r.t.Helper()
	replies := make(map[uint64]reply)
	for range indices {
		got := r.outcome()
		require.Contains(r.t, indices, got.index)
		require.Equal(r.t, gopool.StatusValue, got.status, "%s", got.payload)
		var answer reply
		require.NoError(r.t, json.Unmarshal(got.payload, &answer))
		require.Equal(r.t, by.cmd.Process.Pid, answer.PID, "task %d", got.index)
		replies[got.index] = answer
	}
	require.Len(r.t, replies, len(indices), "a task was settled twice")
	return replies
}

// lost waits for the outcome of a task that its worker took with it.
func (r *rig) lost(by *worker, index uint64, code int) (text string) {
	r.t.Helper()
	got := r.outcome()
	require.Equal(r.t, gopool.StatusLost, got.status, "task %d: %s", got.index, got.payload)
	assert.Equal(r.t, index, got.index)
	pid, exit, started, text := got.failure(r.t)
	assert.Equal(r.t, by.cmd.Process.Pid, pid)
	assert.Equal(r.t, fmt.Sprint(code), fmt.Sprint(exit))
	assert.True(r.t, started)
	return text
}

// finish closes the pool and expects everything to end well: the workers stop, nothing is left.
func (r *rig) finish(workers ...*worker) {
	r.t.Helper()
	r.wires.Pool.Close()
	codes := make(map[*worker]int)
	for _, w := range workers {
		codes[w] = 0
	}
	r.end(codes)
}

// end expects workers to end with these exit codes, in any order, and the pool with them.
func (r *rig) end(codes map[*worker]int) {
	r.t.Helper()
	byID := make(map[int]*worker)
	for w := range codes {
		byID[int(w.id)] = w
	}
	for range codes {
		id := r.ended()
		require.Contains(r.t, byID, id)
		code := byID[id].wait()
		require.Equal(r.t, codes[byID[id]], code, "worker %d", id)
		require.False(r.t, r.reaped(byID[id], code).Replace)
		delete(byID, id)
	}
	require.Equal(r.t, -1, r.ended())
	_, err := r.wait()
	assert.ErrorIs(r.t, err, errDrained)
	tasks, bytes, regions := r.wires.Pool.Load()
	assert.Zero(r.t, tasks)
	assert.Zero(r.t, bytes)
	assert.Zero(r.t, regions)
}
