// SPDX-License-Identifier: MIT

package bridge_test

import (
	"os/exec"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"gopool/bridge"
	"gopool/gopool"
)

// process is a plain process that runs until its standard input is closed.
type process struct {
	pidfd int
	pid   int
	end   func()
}

func newProcess(t *testing.T) *process {
	t.Helper()
	cmd := exec.Command("cat")
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait() // how it ended is the test's business
	})
	pidfd, err := unix.PidfdOpen(cmd.Process.Pid, 0)
	require.NoError(t, err)
	closing(t, pidfd)
	return &process{pidfd: pidfd, pid: cmd.Process.Pid, end: func() {
		require.NoError(t, in.Close())
		require.NoError(t, awaitReadable(pidfd))
	}}
}

func newBoard(t *testing.T) *bridge.Board {
	t.Helper()
	guardDescriptors(t)
	b, err := bridge.NewBoard()
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, b.Poller.Close()) })
	return b
}

// TestAdopt expects the end of a process to be counted once, whether the poller or who reaped it
// was first, and its status to be a fact of its own.
func TestAdopt(t *testing.T) {
	tests := []struct {
		name     string
		seen     bool // the poller sees the end before the process is reaped
		exit     gopool.ExitStatus
		failures int
	}{
		{"seen, ended well", true, gopool.ExitStatus{Known: true}, 0},
		{"seen, failed", true, gopool.ExitStatus{Code: 1, Known: true}, 1},
		{"reaped by somebody else", true, gopool.ExitStatus{}, 1},
		{"not seen", false, gopool.ExitStatus{Known: true}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b, p := newBoard(t), newProcess(t)
			a, err := b.Adopt(p.pid, p.pidfd)
			require.NoError(t, err)
			settle(t, b.Poller)
			assert.Equal(t, gopool.ProcessStats{Adopted: 1}, b.Processes.Stats())
			if tt.seen {
				p.end()
				settle(t, b.Poller)
				assert.Equal(t, gopool.ProcessStats{Adopted: 1, Exited: 1}, b.Processes.Stats())
			}
			require.NoError(t, a.Reaped(tt.exit))
			if !tt.seen {
				p.end()
			}
			settle(t, b.Poller)
			want := gopool.ProcessStats{Adopted: 1, Exited: 1, Failed: tt.failures}
			assert.Equal(t, want, b.Processes.Stats())
			assert.ErrorIs(t, a.Reaped(tt.exit), gopool.ErrUnknownProcess)
		})
	}
}

// TestAdoptEnded expects a process that ended before it was adopted to be seen as well.
func TestAdoptEnded(t *testing.T) {
	b, p := newBoard(t), newProcess(t)
	p.end()
	a, err := b.Adopt(p.pid, p.pidfd)
	require.NoError(t, err)
	settle(t, b.Poller)
	assert.Equal(t, gopool.ProcessStats{Adopted: 1, Exited: 1}, b.Processes.Stats())
	assert.NoError(t, a.Reaped(gopool.ExitStatus{Known: true}))
}

// TestAdoptRefused expects a process that can't be watched not to stay in the register.
func TestAdoptRefused(t *testing.T) {
	b := newBoard(t)
	_, err := b.Adopt(1, -1)
	assert.ErrorIs(t, err, unix.EBADF)
	assert.Zero(t, b.Processes.Stats())
}

// TestAttachRefused expects a worker that can't be watched, or is gone, to be reported as ended at
// once with the reason, and its pool to go on.
func TestAttachRefused(t *testing.T) {
	tests := []struct {
		name   string
		change func(*bridge.Endpoints)
		reason string
	}{
		{"gone", func(e *bridge.Endpoints) { e.PIDFD = -1 }, ""},
		{"no socket", func(e *bridge.Endpoints) { e.Socket = -1 }, "bad file descriptor"},
		{"no process", func(e *bridge.Endpoints) { e.PIDFD = 1 << 20 }, "worker's process"},
		{"no peer", func(e *bridge.Endpoints) { e.PIDFD, e.Peer = -1, -1 }, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			parent, child := newPair(t)
			p := newProcess(t)
			index := r.submit("a")
			for i := range 3 {
				ends := bridge.Endpoints{Socket: parent, Peer: child, PIDFD: p.pidfd, Lane: -1}
				tt.change(&ends)
				id := r.board.Attach(r.wires, p.pid, ends)
				require.Equal(t, int(id), r.ended())
				verdict, err := r.wires.Pool.Reaped(id, gopool.ExitStatus{})
				require.NoError(t, err)
				require.Equal(t, i < 2, verdict.Replace)
			}
			got := r.outcome()
			assert.Equal(t, index, got.index)
			assert.Equal(t, gopool.StatusBroken, got.status)
			pid, code, started, text := got.failure(t)
			assert.Equal(t, p.pid, pid)
			assert.Nil(t, code)
			assert.False(t, started)
			assert.Contains(t, text, tt.reason)
			p.end()
			r.finish()
		})
	}
}

// TestOpenPoolRefused expects memory that can't be mapped to be an error.
func TestOpenPoolRefused(t *testing.T) {
	guardDescriptors(t)
	board, err := bridge.NewBoard()
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, board.Poller.Close()) })
	for _, fd := range []int{-1, newEventFD(t)} {
		w, err := board.OpenPool(gopool.Config{}, fd, rigRing, -1, -1)
		assert.Error(t, err)
		assert.Nil(t, w)
	}
}

// TestMapShared expects what one side writes to be seen by the other.
func TestMapShared(t *testing.T) {
	guardDescriptors(t)
	fd, err := newRegion("before")
	require.NoError(t, err)
	closing(t, fd)
	mem, err := bridge.MapShared(fd, 6)
	require.NoError(t, err)
	copy(mem, "after!")
	buf := make([]byte, 6)
	_, err = unix.Pread(fd, buf, 0)
	require.NoError(t, err)
	assert.Equal(t, "after!", string(buf))
	assert.NoError(t, bridge.UnmapShared(mem))
	assert.Error(t, bridge.UnmapShared(mem[:3]), "no longer there")
}
