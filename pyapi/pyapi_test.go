// SPDX-License-Identifier: MIT

package pyapi_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"gopool/bridge"
	"gopool/pyapi"
)

const (
	ringSize    = 4 * bridge.MaxFrame
	stagingSize = 2 * bridge.MaxFrame
	patience    = 20_000 // ms that a test waits for an event that must come
	header      = 56     // bytes of an outcome record before its payload
	event       = 255    // status of a record that is no outcome
)

// closing closes a descriptor when the test ends.
func closing(t *testing.T, fd int, err error) int {
	t.Helper()
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, unix.Close(fd)) })
	return fd
}

func newEventFD(t *testing.T) int {
	t.Helper()
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	return closing(t, fd, err)
}

// newMemory makes a memfd and maps it, as Python does.
func newMemory(t *testing.T, size int) (fd int, mem []byte) {
	t.Helper()
	fd, err := unix.MemfdCreate("memory", unix.MFD_CLOEXEC)
	closing(t, fd, err)
	require.NoError(t, unix.Ftruncate(fd, int64(size)))
	mem, err = unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, unix.Munmap(mem)) })
	return fd, mem
}

// pool is an open pool with what Python has of it.
type pool struct {
	t            *testing.T
	handle       int
	ring         []byte
	wake, events int
	at, read     int
	staging      int
	desk         []byte // the staging area
}

func openPool(t *testing.T) *pool {
	t.Helper()
	fd, mem := newMemory(t, ringSize)
	p := &pool{t: t, ring: mem, wake: newEventFD(t), events: newEventFD(t)}
	p.handle = pyapi.PoolOpen(fd, ringSize, p.wake, p.events, 0, 0)
	require.Positive(t, p.handle)
	deskFD, desk := newMemory(t, stagingSize)
	p.staging, p.desk = pyapi.StagingOpen(deskFD, stagingSize), desk
	require.Positive(t, p.staging)
	t.Cleanup(func() { assert.Zero(t, pyapi.StagingClose(p.staging)) })
	return p
}

// put writes into the staging area and returns the number of bytes.
func (p *pool) put(text string) int { return copy(p.desk, text) }

// await sleeps on an eventfd until it is written.
func (p *pool) await(fd int) {
	p.t.Helper()
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, patience)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		require.NoError(p.t, err)
		require.Equal(p.t, 1, n, "nothing came")
		var counter [8]byte
		_, err = unix.Read(fd, counter[:])
		require.NoError(p.t, err)
		return
	}
}

// outcome is what these tests look at of an outcome record.
type outcome struct {
	job, index, status uint64
	taskRegion         int64
	payload            string
}

// next waits for one outcome. The records of these tests never reach the ring's end.
func (p *pool) next() outcome {
	p.t.Helper()
	for {
		available := pyapi.Take(p.handle, p.read)
		p.read = 0
		if available == 0 {
			p.await(p.wake)
		}
		if available <= 0 {
			require.NotEqual(p.t, -1, available, "drained")
			continue
		}
		r := p.ring[p.at:]
		word := func(at int) uint64 { return binary.LittleEndian.Uint64(r[at:]) }
		size, n := binary.LittleEndian.Uint32(r), binary.LittleEndian.Uint32(r[4:])
		p.at, p.read = p.at+int(size), int(size)
		if word(48) == event {
			continue
		}
		return outcome{word(8), word(16), word(48), int64(word(40)), string(r[header : header+n])}
	}
}

// drained says that everything was read and nothing will come.
func (p *pool) drained() bool {
	p.t.Helper()
	for {
		available := pyapi.Take(p.handle, p.read)
		p.read = 0
		switch available {
		case -1:
			return true
		case 0:
			p.await(p.wake)
		case -2: // a worker has ended
		default:
			return false
		}
	}
}

func (p *pool) nextExited() int {
	p.t.Helper()
	for {
		if worker := pyapi.NextExited(p.handle); worker != 0 {
			return worker
		}
		p.await(p.events)
	}
}

// worker is a process that only lives, and a goroutine that speaks for it.
type worker struct {
	number int
	stdin  io.Closer
	cmd    *exec.Cmd
	socket int        // the worker's end
	served chan error // what ended the goroutine; nil: a Stop
}

// newProcess starts a process that runs until its standard input is closed.
func newProcess(t *testing.T) (cmd *exec.Cmd, stdin io.Closer, pidfd int) {
	t.Helper()
	cmd = exec.Command("cat")
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = stdin.Close()
		_ = cmd.Wait() // how it ended is the test's business
	})
	pidfd, err = unix.PidfdOpen(cmd.Process.Pid, 0)
	return cmd, stdin, closing(t, pidfd, err)
}

func (p *pool) addWorker() *worker {
	p.t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	closing(p.t, pair[0], err)
	closing(p.t, pair[1], nil)
	cmd, stdin, pidfd := newProcess(p.t)
	w := &worker{cmd: cmd, stdin: stdin, socket: pair[1], served: make(chan error, 1)}
	w.number = pyapi.WorkerAdd(p.handle, cmd.Process.Pid, pair[0], pair[1], pidfd, -1)
	require.Positive(p.t, w.number)
	go func() { w.served <- w.serve() }()
	p.t.Cleanup(func() {
		_ = unix.Shutdown(w.socket, unix.SHUT_RDWR) // ends it where the test failed
	})
	return w
}

// serve answers every task with its payload between brackets until Stop.
func (w *worker) serve() error {
	hello, err := bridge.AppendHello(nil, &bridge.Hello{Version: bridge.Version, PID: 1})
	if err != nil {
		return err
	}
	buf, oob := make([]byte, bridge.MaxFrame), make([]byte, unix.CmsgSpace(4))
	for _, frame := range [][]byte{hello, bridge.AppendReady(nil)} {
		if _, err := unix.Write(w.socket, frame); err != nil {
			return err
		}
	}
	for {
		n, oobn, _, _, err := unix.Recvmsg(w.socket, buf, oob, unix.MSG_CMSG_CLOEXEC)
		if err != nil {
			return err
		}
		m, err := bridge.DecodeToWorker(buf[:n], oobn > 0)
		if err != nil || m.Kind == bridge.KindStop {
			return err
		}
		payload := m.Task.Payload
		if oobn > 0 {
			if payload, err = readRegion(oob[:oobn], m.Task.RegionSize); err != nil {
				return err
			}
		}
		answer := fmt.Appendf(nil, "%d[%s]%s", m.Task.Mode, payload, m.Task.Definition)
		done, err := bridge.AppendDone(nil, &bridge.Done{ID: m.Task.ID, Payload: answer})
		if err != nil {
			return err
		}
		if _, err := unix.Write(w.socket, done); err != nil {
			return err
		}
	}
}

func readRegion(oob []byte, size uint64) ([]byte, error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return nil, err
	}
	buf := make([]byte, size)
	_, err = unix.Pread(fds[0], buf, 0)
	return buf, errors.Join(err, unix.Close(fds[0]))
}

// end ends a worker's process once it was told to stop.
func (p *pool) end(w *worker) {
	p.t.Helper()
	require.NoError(p.t, <-w.served)
	require.NoError(p.t, w.stdin.Close())
	require.Equal(p.t, w.number, p.nextExited())
	require.NoError(p.t, w.cmd.Wait())
}

// TestRoundTrip expects a pool's whole life to work through these functions alone: function,
// tasks, outcomes, counters, the end, and release.
func TestRoundTrip(t *testing.T) {
	count := pyapi.PoolCount()
	p := openPool(t)
	assert.Equal(t, count+1, pyapi.PoolCount())
	function := pyapi.FunctionAdd(p.handle, p.staging, p.put("def"))
	assert.Equal(t, 1, function)

	// Submitted before there is a worker: the load adds up.
	assert.Equal(t, 3, pyapi.Submit(p.handle, p.staging, p.put("one"), 7, 0, 0, function, 0))
	assert.Equal(t, 8, pyapi.Submit(p.handle, p.staging, p.put("three"), 7, 1, 1, function, 0))
	regionFD, region := newMemory(t, 4096)
	copy(region, "region")
	assert.Equal(t, 14, pyapi.SubmitRegion(p.handle, regionFD, 6, 8, 2, 2, 0, 0))
	stats := func(want ...int) {
		t.Helper()
		for which, value := range want {
			assert.Equal(t, value, pyapi.PoolStat(p.handle, which), "counter %d", which)
		}
	}
	stats(0, 0, 0, 0, 0, 0, 3, 14, 1, 3)
	assert.Zero(t, pyapi.NextExited(p.handle))

	w := p.addWorker()
	assert.Equal(t, outcome{7, 0, 0, -1, "0[one]def"}, p.next())
	assert.Equal(t, outcome{7, 1, 0, -1, "1[three]"}, p.next())
	assert.Equal(t, outcome{8, 2, 0, int64(regionFD), "2[region]"}, p.next())
	stats(1, 3, 0, 0, 0, 0, 0, 0, 0, 0)

	assert.Zero(t, pyapi.PoolClose(p.handle))
	assert.Equal(t, pyapi.CodeClosed, pyapi.Submit(p.handle, p.staging, 0, 1, 1, 0, 0, 0))
	assert.Equal(t, pyapi.CodeClosed, pyapi.SubmitRegion(p.handle, regionFD, 1, 1, 1, 0, 0, 0))
	p.end(w)
	assert.Zero(t, pyapi.WorkerReaped(p.handle, w.number, 0, 1))
	assert.Equal(t, pyapi.CodeUnknownHandle, pyapi.WorkerReaped(p.handle, w.number, 0, 1))
	assert.Equal(t, -1, p.nextExited())
	assert.True(t, p.drained())

	assert.Zero(t, pyapi.PoolRelease(p.handle))
	assert.Equal(t, pyapi.CodeUnknownHandle, pyapi.PoolRelease(p.handle))
	assert.Equal(t, pyapi.CodeUnknownHandle, pyapi.Take(p.handle, 0))
	assert.Equal(t, count, pyapi.PoolCount())
}

// putMany writes payloads into the staging area as SubmitMany wants them and returns their number.
func (p *pool) putMany(payloads ...string) int {
	at := 4 * len(payloads)
	for i, payload := range payloads {
		binary.LittleEndian.PutUint32(p.desk[4*i:], uint32(len(payload)))
		at += copy(p.desk[at:], payload)
	}
	return len(payloads)
}

// TestSubmitMany expects tasks that are handed over together to be tasks of their own, in order.
func TestSubmitMany(t *testing.T) {
	p := openPool(t)
	function := pyapi.FunctionAdd(p.handle, p.staging, p.put("def"))
	many := func(n, first int) int {
		return pyapi.SubmitMany(p.handle, p.staging, n, 7, first, 1, function, 0)
	}
	assert.Equal(t, 6, many(p.putMany("one", "", "two"), 0))
	assert.Equal(t, 11, many(p.putMany("three"), 3))
	clear(p.desk) // it is the caller's again
	assert.Equal(t, 4, pyapi.PoolStat(p.handle, 6))
	w := p.addWorker()
	for i, payload := range []string{"1[one]def", "1[]", "1[two]", "1[three]"} {
		assert.Equal(t, outcome{7, uint64(i), 0, -1, payload}, p.next())
	}
	assert.Zero(t, pyapi.PoolClose(p.handle))
	assert.Equal(t, pyapi.CodeClosed, many(p.putMany("x"), 4))
	p.end(w)
	assert.Zero(t, pyapi.WorkerReaped(p.handle, w.number, 0, 1))
	assert.Equal(t, -1, p.nextExited())
	assert.Zero(t, pyapi.PoolRelease(p.handle))
}

// TestSubmitManyRefused expects a batch with anything out of its range to be refused as a whole.
func TestSubmitManyRefused(t *testing.T) {
	p := openPool(t)
	definition := pyapi.FunctionAdd(p.handle, p.staging, p.put("definition"))
	long := string(make([]byte, bridge.MaxInline))
	tests := []struct {
		name                       string
		payloads                   []string
		count, mode, function, ops int
		want                       int
	}{
		{"none", nil, 0, 0, 0, 0, pyapi.CodeBadArgument},
		{"negative number", []string{"x"}, -1, 0, 0, 0, pyapi.CodeBadArgument},
		{"more sizes than staged", nil, stagingSize/4 + 1, 0, 0, 0, pyapi.CodeBadArgument},
		{"more bytes than staged", []string{long, long, long}, 3, 0, 0, 0, pyapi.CodeBadArgument},
		{"mode 3", []string{"x"}, 1, 3, 0, 0, pyapi.CodeBadArgument},
		{"unknown function", []string{"x"}, 1, 0, definition + 1, 0, pyapi.CodeBadArgument},
		{"unknown options", []string{"x"}, 1, 0, 0, 7, pyapi.CodeBadArgument},
		{"the last is large beside the definition", []string{"x", long}, 2, 0, definition, 0,
			pyapi.CodeTooLarge},
	}
	for _, tt := range tests {
		p.putMany(tt.payloads...)
		got := pyapi.SubmitMany(p.handle, p.staging, tt.count, 1, 0, tt.mode, tt.function, tt.ops)
		assert.Equal(t, tt.want, got, tt.name)
		assert.Zero(t, pyapi.PoolStat(p.handle, 6), tt.name)
	}
	assert.Zero(t, pyapi.PoolTerminate(p.handle))
	assert.Zero(t, pyapi.PoolRelease(p.handle))
}

// TestTerminate expects a terminated pool to drop its tasks and to take no more.
func TestTerminate(t *testing.T) {
	p := openPool(t)
	require.Positive(t, pyapi.Submit(p.handle, p.staging, p.put("x"), 1, 1, 0, 0, 0))
	assert.Zero(t, pyapi.PoolTerminate(p.handle))
	assert.Equal(t, pyapi.CodeTerminated, pyapi.Submit(p.handle, p.staging, 1, 1, 2, 0, 0, 0))
	assert.Zero(t, pyapi.PoolStat(p.handle, 6))
	assert.Equal(t, -1, p.nextExited())
	assert.True(t, p.drained())
	assert.Zero(t, pyapi.WorkerNotStarted(p.handle), "no worker is wanted")
	assert.Zero(t, pyapi.PoolRelease(p.handle))
}

// TestVerdicts expects the pause before the next worker as a number of milliseconds plus one, and
// 0 once the pool is broken.
func TestVerdicts(t *testing.T) {
	p := openPool(t)
	gone := func() int {
		w := pyapi.WorkerAdd(p.handle, 1<<22+1, -1, -1, -1, -1)
		require.Equal(t, w, p.nextExited())
		return w
	}
	assert.Equal(t, 1+50, pyapi.WorkerReaped(p.handle, gone(), 1, 1))
	assert.Equal(t, 1+100, pyapi.WorkerNotStarted(p.handle))
	assert.Zero(t, pyapi.WorkerReaped(p.handle, gone(), 0, 0))
	require.GreaterOrEqual(t, pyapi.Submit(p.handle, p.staging, 1, 3, 4, 0, 0, 0), 0)
	got := p.next()
	assert.Equal(t, uint64(4), got.status)
	assert.Equal(t, uint64(4), got.index)
	assert.Equal(t, 2, pyapi.PoolStat(p.handle, 5))
	pyapi.PoolClose(p.handle)
	assert.True(t, p.drained())
	assert.Zero(t, pyapi.PoolRelease(p.handle))
}

// TestUnknownHandles expects a handle that nobody has to be a code everywhere, never a crash.
func TestUnknownHandles(t *testing.T) {
	p := openPool(t)
	calls := map[string]func(handle int) int{
		"WorkerAdd":         func(h int) int { return pyapi.WorkerAdd(h, 1, 0, 0, 0, -1) },
		"WorkerReaped":      func(h int) int { return pyapi.WorkerReaped(h, 1, 0, 1) },
		"WorkerNotStarted":  pyapi.WorkerNotStarted,
		"WorkerBegan":       func(h int) int { return pyapi.WorkerBegan(h, 1, 0) },
		"WorkerAsked":       func(h int) int { return pyapi.WorkerAsked(h, 1) },
		"SupervisorAdd":     func(h int) int { return pyapi.SupervisorAdd(h, 0) },
		"SupervisorRemove":  func(h int) int { return pyapi.SupervisorRemove(h, 1) },
		"SupervisorStarted": func(h int) int { return pyapi.SupervisorStarted(h, 1) },
		"SupervisorEnded":   func(h int) int { return pyapi.SupervisorEnded(h, 1, 0, 1) },
		"SupervisorClose":   pyapi.SupervisorClose,
		"NextExited":        pyapi.NextExited,
		"PoolClose":         pyapi.PoolClose,
		"PoolTerminate":     pyapi.PoolTerminate,
		"PoolKill":          pyapi.PoolKill,
		"PoolRelease":       pyapi.PoolRelease,
		"PoolStat":          func(h int) int { return pyapi.PoolStat(h, 0) },
		"PoolLimits":        func(h int) int { return pyapi.PoolLimits(h, 1, 0, 0, 0, 0, 0, 0, 0, 1) },
		"PoolResize":        func(h int) int { return pyapi.PoolResize(h, 1) },
		"OptionsAdd":        func(h int) int { return pyapi.OptionsAdd(h, 1, 0, 0, 0) },
		"JobCancel":         func(h int) int { return pyapi.JobCancel(h, 1, 1, 0) },
		"JobPlace":          func(h int) int { return pyapi.JobPlace(h, 1) },
		"FunctionAdd":       func(h int) int { return pyapi.FunctionAdd(h, p.staging, 1) },
		"Submit":            func(h int) int { return pyapi.Submit(h, p.staging, 1, 1, 1, 0, 0, 0) },
		"SubmitMany":        func(h int) int { return pyapi.SubmitMany(h, p.staging, 1, 1, 1, 0, 0, 0) },
		"SubmitRegion":      func(h int) int { return pyapi.SubmitRegion(h, 0, 1, 1, 1, 0, 0, 0) },
		"Take":              func(h int) int { return pyapi.Take(h, 0) },
		"Tight":             pyapi.Tight,
		"Tighten":           func(h int) int { return pyapi.Tighten(h, 0) },
		"StagingClose":      pyapi.StagingClose,
		"ProcessReaped":     func(h int) int { return pyapi.ProcessReaped(h, 0, 1) },
		"worker of a pool":  func(h int) int { return pyapi.WorkerReaped(p.handle, h, 0, 1) },
		"staging of FunctionAdd": func(h int) int {
			return pyapi.FunctionAdd(p.handle, h, 1)
		},
		"staging of Submit": func(h int) int {
			return pyapi.Submit(p.handle, h, 1, 1, 1, 0, 0, 0)
		},
		"staging of SubmitMany": func(h int) int {
			return pyapi.SubmitMany(p.handle, h, 1, 1, 1, 0, 0, 0)
		},
	}
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			for _, handle := range []int{0, -1, 1 << 30} {
				assert.Equal(t, pyapi.CodeUnknownHandle, call(handle), "handle %d", handle)
			}
		})
	}
	assert.Zero(t, pyapi.PoolRelease(p.handle))
}

// TestBadArguments expects a number out of its range to be refused, and nothing to be changed.
func TestBadArguments(t *testing.T) {
	p := openPool(t)
	fd, _ := newMemory(t, ringSize)
	definition := pyapi.FunctionAdd(p.handle, p.staging, p.put("definition"))
	pools, adopted := pyapi.PoolCount(), pyapi.ProcessStat(0)
	open := func(fd, size, maxTasks, ahead int) int {
		return pyapi.PoolOpen(fd, size, p.wake, p.events, maxTasks, ahead)
	}
	submit := func(n, mode, function int) int {
		return pyapi.Submit(p.handle, p.staging, n, 1, 1, mode, function, 0)
	}
	region := func(fd, size, mode, function int) int {
		return pyapi.SubmitRegion(p.handle, fd, size, 1, 1, mode, function, 0)
	}
	tests := []struct {
		name string
		got  int
		want int
	}{
		{"ring too small", open(fd, ringSize-8, 0, 0), pyapi.CodeBadArgument},
		{"ring not of eights", open(fd, ringSize+4, 0, 0), pyapi.CodeBadArgument},
		{"negative ring", open(fd, -8, 0, 0), pyapi.CodeBadArgument},
		{"negative maxtasks", open(fd, ringSize, -1, 0), pyapi.CodeBadArgument},
		{"unknown way to send ahead", open(fd, ringSize, 0, 3), pyapi.CodeBadArgument},
		{"negative way to send ahead", open(fd, ringSize, 0, -1), pyapi.CodeBadArgument},
		{"ring that is not open", open(1<<20, ringSize, 0, 0), pyapi.CodeSystem},
		{"empty staging", pyapi.StagingOpen(fd, 0), pyapi.CodeBadArgument},
		{"negative staging", pyapi.StagingOpen(fd, -1), pyapi.CodeBadArgument},
		{"staging that is not open", pyapi.StagingOpen(1<<20, 8), pyapi.CodeSystem},
		{"more than staged", submit(stagingSize+1, 0, 0), pyapi.CodeBadArgument},
		{"negative payload", submit(-1, 0, 0), pyapi.CodeBadArgument},
		{"mode 3", submit(1, 3, 0), pyapi.CodeBadArgument},
		{"negative mode", submit(1, -1, 0), pyapi.CodeBadArgument},
		{"mode of nine bits", submit(1, 256, 0), pyapi.CodeBadArgument},
		{"unknown function", submit(1, 0, definition+1), pyapi.CodeBadArgument},
		{"negative function", submit(1, 0, -1), pyapi.CodeBadArgument},
		{"function of 33 bits", submit(1, 0, 1<<32+definition), pyapi.CodeBadArgument},
		{"large payload", submit(bridge.MaxInline+1, 0, 0), pyapi.CodeTooLarge},
		{"large beside the definition", submit(bridge.MaxInline, 0, definition),
			pyapi.CodeTooLarge},
		{"region without descriptor", region(-1, 1, 0, 0), pyapi.CodeBadArgument},
		{"empty region", region(fd, 0, 0, 0), pyapi.CodeBadArgument},
		{"region with mode 3", region(fd, 1, 3, 0), pyapi.CodeBadArgument},
		{"region with unknown function", region(fd, 1, 0, 99), pyapi.CodeBadArgument},
		{"definition larger than staged", pyapi.FunctionAdd(p.handle, p.staging, stagingSize+1),
			pyapi.CodeBadArgument},
		{"negative definition", pyapi.FunctionAdd(p.handle, p.staging, -1),
			pyapi.CodeBadArgument},
		{"negative bytes consumed", pyapi.Take(p.handle, -1), pyapi.CodeBadArgument},
		{"no size", pyapi.PoolLimits(p.handle, 0, 0, 0, 0, 0, 0, 0, 0, 1), pyapi.CodeBadArgument},
		{"negative limit", pyapi.PoolLimits(p.handle, 1, 0, 0, 0, 0, 0, -1, 0, 1), pyapi.CodeBadArgument},
		{"resize to nothing", pyapi.PoolResize(p.handle, 0), pyapi.CodeBadArgument},
		{"negative retries", pyapi.OptionsAdd(p.handle, 0, -1, 0, 0), pyapi.CodeBadArgument},
		{"unknown outcome to retry", pyapi.OptionsAdd(p.handle, 0, 1, 8, 0), pyapi.CodeBadArgument},
		{"unknown options", pyapi.Submit(p.handle, p.staging, 1, 1, 1, 0, 0, 7),
			pyapi.CodeBadArgument},
		{"negative counter", pyapi.PoolStat(p.handle, -1), pyapi.CodeBadArgument},
		{"unknown counter", pyapi.PoolStat(p.handle, 14), pyapi.CodeBadArgument},
		{"unknown counter of processes", pyapi.ProcessStat(3), pyapi.CodeBadArgument},
		{"unknown descriptor of the poller", pyapi.PollerFD(2), pyapi.CodeBadArgument},
		{"process without pidfd", pyapi.ProcessAdopt(1, -1), pyapi.CodeSystem},
	}
	for _, tt := range tests {
		assert.Equal(t, tt.want, tt.got, tt.name)
	}
	assert.Equal(t, pools, pyapi.PoolCount())
	assert.Equal(t, adopted, pyapi.ProcessStat(0))
	for which := range 10 {
		assert.Zero(t, pyapi.PoolStat(p.handle, which), "counter %d", which)
	}
	assert.Equal(t, bridge.MaxInline, submit(bridge.MaxInline, 2, 0), "the largest that fits")
	assert.Zero(t, pyapi.PoolTerminate(p.handle))
	assert.Zero(t, pyapi.PoolRelease(p.handle))
}

// TestProcesses expects an adopted process to be counted, and its handle to end when it is reaped.
func TestProcesses(t *testing.T) {
	adopted, exited, failed := pyapi.ProcessStat(0), pyapi.ProcessStat(1), pyapi.ProcessStat(2)
	cmd, stdin, pidfd := newProcess(t)
	process := pyapi.ProcessAdopt(cmd.Process.Pid, pidfd)
	require.Positive(t, process)
	assert.Equal(t, adopted+1, pyapi.ProcessStat(0))
	assert.Equal(t, exited, pyapi.ProcessStat(1))
	require.NoError(t, stdin.Close())
	require.NoError(t, cmd.Wait())
	assert.Zero(t, pyapi.ProcessReaped(process, 1, 1))
	assert.Equal(t, exited+1, pyapi.ProcessStat(1))
	assert.Equal(t, failed+1, pyapi.ProcessStat(2))
	assert.Equal(t, pyapi.CodeUnknownHandle, pyapi.ProcessReaped(process, 1, 1))
}

// TestConstants expects what Python asks for at import.
func TestConstants(t *testing.T) {
	assert.Equal(t, 1, pyapi.ProtocolVersion())
	for i := range 2 {
		fd := pyapi.PollerFD(i)
		require.Positive(t, fd)
		_, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		assert.NoError(t, err)
	}
	assert.NotEqual(t, pyapi.PollerFD(0), pyapi.PollerFD(1))
}

// TestTreeSignal expects the results that Python acts on: sent, ended before, refused.
func TestTreeSignal(t *testing.T) {
	cmd := exec.Command("sleep", "600")
	require.NoError(t, cmd.Start())
	pid := cmd.Process.Pid
	for _, signal := range []int{-1, 0, 65} {
		assert.Less(t, pyapi.TreeSignal(pid, -1, signal), 0)
	}
	assert.Less(t, pyapi.TreeSignal(1, -1, 9), 0)
	assert.Zero(t, pyapi.TreeSignal(pid, -1, 9))
	assert.Error(t, cmd.Wait())
	assert.Equal(t, 1, pyapi.TreeSignal(pid, -1, 9))
}

// TestSupervisor expects the decisions as numbers: restarts with their pause plus one, then the end.
func TestSupervisor(t *testing.T) {
	s := pyapi.SupervisorOpen(1, 60_000, 0, 0)
	require.Positive(t, s)
	child := pyapi.SupervisorAdd(s, 1)
	assert.Zero(t, pyapi.SupervisorEnded(s, child, 0, 1))
	assert.Equal(t, 1, pyapi.SupervisorEnded(s, child, -9, 1))
	assert.Zero(t, pyapi.SupervisorStarted(s, child))
	assert.Equal(t, -1, pyapi.SupervisorEnded(s, child, 0, 0))
	assert.Zero(t, pyapi.SupervisorRemove(s, child))
	assert.Equal(t, pyapi.CodeUnknownHandle, pyapi.SupervisorEnded(s, child, 0, 1))
	assert.Equal(t, pyapi.CodeUnknownHandle, pyapi.SupervisorStarted(s, child))
	assert.Equal(t, pyapi.CodeBadArgument, pyapi.SupervisorAdd(s, 3))
	assert.Equal(t, pyapi.CodeBadArgument, pyapi.SupervisorOpen(-1, 0, 0, 0))
	assert.Zero(t, pyapi.SupervisorClose(s))
}
